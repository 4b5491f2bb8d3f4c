"""Which proxy the environment names, and the hosts that are never requested through one."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from workers.providers.http import proxies

PROXY = "http://proxy.example.com:3128"
WEB = "https://serpapi.com/search"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(proxies, "_resolved", {})


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, WEB, None),
        ({"HTTPS_PROXY": PROXY}, WEB, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, WEB, PROXY),
        ({"HTTPS_PROXY": PROXY}, "http://serpapi.com/", None),
        ({"HTTP_PROXY": PROXY}, "http://serpapi.com/", PROXY),
        ({"HTTP_PROXY": PROXY}, WEB, None),
        ({"ALL_PROXY": PROXY}, WEB, PROXY),
        ({"HTTPS_PROXY": "proxy.example.com:3128"}, WEB, PROXY),
        ({"HTTPS_PROXY": "https://proxy.example.com"}, WEB, "https://proxy.example.com"),
        ({"HTTPS_PROXY": ""}, WEB, None),
        ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, WEB, None),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://127.0.0.1:1080"}, WEB, PROXY),
        ({"HTTPS_PROXY": "http://"}, WEB, None),
        ({"HTTPS_PROXY": "http://[::1"}, WEB, None),
        ({"HTTPS_PROXY": "http://proxy:port"}, WEB, None),
        ({"HTTPS_PROXY": PROXY}, "https://[::1", None),
        ({"HTTPS_PROXY": PROXY}, "https://serpapi.com:port/", None),
        ({"HTTPS_PROXY": PROXY}, "", None),
    ],
)
def test_the_proxy_is_the_one_of_the_urls_scheme(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxies.from_environment(url) == (None if proxy is None else URL(proxy))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "0.0.0.0"),
        *("10.0.0.7", "192.168.1.4", "172.20.0.2", "169.254.169.254", "100.64.1.1", "[fd00::7]", "[fec0::1]"),
        *("judge", "gpu-17", "judge.prod.svc.cluster.local", "judge.prod.svc", "printer.local"),
        *("metadata.google.internal", "nas.lan", "nas.home.arpa", "db.corp"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_internal_hosts_are_requested_directly(
    monkeypatch: pytest.MonkeyPatch, scheme: str, host: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert proxies.from_environment(f"{scheme}://{host}:8000/v1") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("serpapi.com", WEB, True),
        ("SerpAPI.com", WEB, True),
        (".com", WEB, True),
        ("*.serpapi.com", "https://a.serpapi.com/", True),
        ("other.org serpapi.com", WEB, True),
        ("other.org, serpapi.com", WEB, True),
        ("*", WEB, True),
        ("other.org,*", WEB, True),
        ("serpapi.com:443", "https://serpapi.com:443/", True),
        ("8.8.0.0/16", "https://8.8.8.8/", True),
        ("2a00:1450::/32", "https://[2a00:1450::5]/", True),
        ("8.8.8.8", "https://8.8.8.8/", True),
        ("pi.com", WEB, False),
        ("serpapi.com:8443", WEB, False),
        ("8.9.0.0/16", "https://8.8.8.8/", False),
        ("", WEB, False),
        (",, ,", WEB, False),
    ],
)
def test_no_proxy_lists_names_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxies.from_environment(url) is None) is direct


class Names(AbstractResolver):
    """Resolves every name to `found`, or to nothing."""

    def __init__(self, *found: str):
        self.found = found
        self.lookups: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.lookups.append(host)
        if not self.found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self.found
        ]

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("found", "direct"),
    [
        (("8.8.8.8",), False),
        ((), False),
        (("10.0.0.7",), True),
        (("8.8.8.8", "10.0.0.7"), True),
        (("9.9.9.9",), True),  # as NO_PROXY says below
    ],
)
def test_a_name_that_resolves_to_an_internal_address_is_requested_directly(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "9.9.9.0/24")
    proxy = asyncio.run(proxies.route("https://judge.example.com/v1", Names(*found)))
    assert proxy == (None if direct else URL(PROXY))


def test_a_name_is_not_resolved_for_each_request_nor_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()
    asyncio.run(proxies.route(WEB, names))
    assert names.lookups == []
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    for _ in range(3):
        asyncio.run(proxies.route(WEB, names))
    assert names.lookups == ["serpapi.com"]


def test_a_name_that_does_not_resolve_in_time_is_left_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Names):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setattr(proxies, "CHOOSE_S", 0.02)
    assert asyncio.run(proxies.route(WEB, Silent())) == URL(PROXY)


def test_a_proxys_password_is_not_shown() -> None:
    assert proxies.redacted(URL("http://me:secret@proxy.example.com:3128")) == PROXY


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_url_and_no_variable_raises(url: str, value: str) -> None:
    variables = {"https": value, "http": value, "all": value, "no": value}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(proxies, "getproxies_environment", lambda: variables)
        for asked in (url, f"https://{url}", f"http://example.com:{url}"):
            found = proxies.from_environment(asked)
            assert found is None or (found.scheme in ("http", "https") and found.host)
