"""The guarded fetch of URLs from outside: the addresses and the sizes that it allows."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_services import FakeServices
from hypothesis import given
from hypothesis import strategies as st
from name_server import NameServer

from workers.errors import Cause, InfrastructureFault
from workers.providers.http import client as http
from workers.providers.http import names
from workers.providers.http.addresses import is_public

PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "no address",
]


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as running:
        yield running


def get(url: str, *, allow_private: bool = True, seconds: float = 20, **limits: Any) -> bytes:
    async def once() -> bytes:
        async with http.guarded_session(allow_private=allow_private) as session:
            return await http.fetch(
                session,
                url,
                deadline=time.time() + seconds,
                allow_private=allow_private,
                limits=http.FetchLimits(**limits),
            )

    return asyncio.run(once())


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "151.101.1.69", "2606:4700::1111", "64:ff9b::101:101"])
def test_internet_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_makes_a_private_address_public(address: ipaddress.IPv4Address) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    assert is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) | int(address)))) == is_public(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "data:image/png;base64,AAAA",
        "//example.org/a.png",
        "http:///a.png",
        "http://user:secret@example.org/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://999999999999999:99999/",
        "http://[fec0::1]:8080/a.png",
        "http://192.0.0.192/a.png",
        "http://2130706433/a.png",
        "http://0177.0.0.1/a.png",
        "http://0x7f000001/a.png",
        "http://0X7F.0.0.0x1/a.png",
        "http://127.0x./a.png",
        "http://1..2/a.png",
        "http://127.0.0.1./a.png",
        "http://127.0.0.1#@example.org/a.png",
        "http://⑯⑨。②⑤④。⑯⑨。②⑤④/a.png",
        "http://[2606:4700::1111%25eth0]/a.png",
        "http://[::ffff:0:127.0.0.1]/a.png",
        "http://1.1.1.1:22/a.png",
        "http://example.org:25/a.png",
        "https://example.org:1023/a.png",
        "http://example.org:0/a.png",
        "",
    ],
)
def test_unsafe_urls_are_refused_before_any_connection(url: str) -> None:
    with pytest.raises(http.Refused):
        http.check_url(url, allow_private=False)


@pytest.mark.parametrize("host", ["0xcafe.example", "1.example", "0x7g.1", "7.0xyz"])
def test_names_with_numbers_are_allowed(host: str) -> None:
    assert http.check_url(f"https://{host}/a.png", allow_private=False)


@pytest.mark.parametrize("port", ["", ":80", ":443", ":1024", ":8443", ":65535"])
def test_web_ports_are_allowed(port: str) -> None:
    assert http.check_url(f"https://example.org{port}/a.png", allow_private=False)


@given(st.text(max_size=60))
def test_no_text_makes_the_check_raise_anything_else(text: str) -> None:
    try:
        parsed = http.check_url(text, allow_private=False)
    except http.Refused:
        return
    assert parsed.scheme in ("http", "https")


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
def test_names_that_resolve_to_private_addresses_are_refused(services: FakeServices, host: str) -> None:
    port = services.url.rpartition(":")[2]
    with pytest.raises(InfrastructureFault):
        get(f"http://{host}:{port}/picture.png", allow_private=False)
    assert not services.seen


def test_a_name_with_one_public_and_one_private_address_reaches_only_the_public_one(
    name_server: NameServer,
) -> None:
    name_server.names["example.org"] = ["10.0.0.1", "1.1.1.1", "::ffff:10.0.0.1"]
    found = asyncio.run(http.Resolver(allow_private=False).resolve("example.org", 80))
    assert [one["host"] for one in found] == ["1.1.1.1"]


def test_the_address_that_was_checked_is_the_one_connected_to(
    services: FakeServices, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up would find the private address: the guard makes only one."""
    port = int(services.url.rpartition(":")[2])
    name_server.names["rebind.example"] = iter(["192.0.2.1", "127.0.0.1", "127.0.0.1"])
    monkeypatch.setattr(names, "is_public", lambda address: address == "192.0.2.1")
    with pytest.raises(InfrastructureFault):
        get(f"http://rebind.example:{port}/picture.png", allow_private=False, timeout_s=1)
    assert list(name_server.queries.queue) == ["rebind.example"]
    assert not services.seen


def test_a_redirect_is_followed_and_its_target_checked_again(services: FakeServices) -> None:
    assert get(f"{services.url}/to?url={services.url}/picture.png").startswith(b"\x89PNG")
    with pytest.raises(http.Refused):
        get(f"{services.url}/to?url=file:///etc/passwd")


def test_a_redirect_into_our_own_network_is_refused(
    services: FakeServices, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(services.url.rpartition(":")[2])
    name_server.names["public.example"] = "127.0.0.1"
    # The first hop counts as public; its redirect names the same machine by its address.
    monkeypatch.setattr(http.Resolver, "resolve", _as_public(http.Resolver.resolve))
    with pytest.raises(http.Refused):
        get(f"http://public.example:{port}/to?url={services.url}/picture.png", allow_private=False)
    assert [one.path for one in services.seen] == ["/to"]


def _as_public(resolve: Any) -> Any:
    async def found(self: Any, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return await resolve(http.Resolver(allow_private=True), host, port, family)

    return found


def test_the_number_of_redirects_is_limited(services: FakeServices) -> None:
    services.script["/to"] = [(302, {"Location": "/to"}, "")] * 20
    with pytest.raises(http.Refused, match="redirects"):
        get(f"{services.url}/to", max_redirects=3)
    assert len(services.seen) == 4


def test_bytes_are_bounded_whether_declared_or_not(services: FakeServices) -> None:
    for path, most in (("/large.png", 2**20), ("/picture.png", 10)):
        with pytest.raises(InfrastructureFault) as caught:
            get(services.url + path, max_bytes=most)
        assert caught.value.cause is Cause.BAD_ANSWER


def test_time_is_bounded_even_when_bytes_keep_coming(services: FakeServices) -> None:
    with pytest.raises(InfrastructureFault, match="took too long") as caught:
        get(f"{services.url}/drip.png", timeout_s=1)
    assert caught.value.cause is Cause.HOST_DOWN


@pytest.mark.parametrize(("status", "cause"), [(404, Cause.BAD_ANSWER), (503, Cause.HOST_DOWN)])
def test_an_error_answer_is_a_failure(services: FakeServices, status: int, cause: Cause) -> None:
    services.script["/picture.png"] = [(status, {}, "")]
    with pytest.raises(InfrastructureFault) as caught:
        get(f"{services.url}/picture.png")
    assert caught.value.cause is cause


def test_an_unreachable_host_is_down() -> None:
    with pytest.raises(InfrastructureFault) as caught:
        get("http://127.0.0.1:9/a.png", timeout_s=5)
    assert caught.value.cause is Cause.HOST_DOWN
