"""A machine behind a proxy: services and images are requested through it, internal hosts never."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import provider_calls
import pytest
from certificates import make_certificate
from connect_proxy import ConnectProxy, Listening
from fake_services import KEY, FakeServices, png
from hostile_server import page
from name_server import Addresses, NameServer

from evaluation.authors.openai import OpenAIAuthor
from evaluation.settings import AuthorSettings
from policy.document import Task
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api
from workers.providers.http import client as http
from workers.settings import ImageModelSettings, SearchSettings

PUBLIC = "93.184.216.34"
PICTURE = "https://pictures.example.com/fox.png"
Names = dict[str, Addresses]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch, name_server: NameServer) -> Names:
    """What this machine can resolve, besides localhost; nothing, unless a test says more. No proxy either."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SERP_API_KEY", KEY)
    return name_server.names


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as running:
        yield running


@pytest.fixture
def proxy(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The environment's proxy for http. It connects to the services for every host."""
    with ConnectProxy(port_of(services.url)) as running:
        monkeypatch.setenv("HTTP_PROXY", running.url)
        yield running


@pytest.fixture
def tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The environment's proxy for https; it leads to a server of a picture that has a certificate."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        away = b"HTTP/1.1 302 Found\r\nLocation: https://10.0.0.1/fox.png\r\nContent-Length: 0\r\n\r\n"
        found = b"Host: pictures.example.com\r\n" in asked
        writer.write(away if b"GET /away" in asked else page(png()) if found else b"HTTP/1.1 404 No\r\n\r\n")
        await writer.drain()

    certificate, key = make_certificate(tmp_path, "pictures.example.com", "api.example.com")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", client)
    behind = Listening(answer, server)
    with ConnectProxy(behind.port) as running:
        monkeypatch.setenv("HTTPS_PROXY", running.url)
        yield running
    behind.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def had(url: str, **options: Any) -> bytes:
    async def once() -> bytes:
        async with http.guarded_session() as session:
            return await http.fetch(session, url, deadline=time.time() + 20, **options)

    return asyncio.run(once())


def call(url: str, key: str = "") -> api.Answer:
    asked = api.Call(
        provider="p", method="POST", url=url, body={"prompt": "a fox"}, deadline=time.time() + 5, key=key
    )
    return asyncio.run(api.send(asked))


def test_a_service_in_the_internet_is_requested_through_the_proxy(
    services: FakeServices, proxy: ConnectProxy
) -> None:
    settings = ImageModelSettings(provider="openai", base_url="http://api.example.com/v1", model="m")
    assert provider_calls.generate("a fox", settings, seed=1, deadline=time.time() + 20).image
    assert proxy.requests == ["POST http://api.example.com/v1/images/generations"]
    assert services.seen[0].body["prompt"] == "a fox"


def test_an_author_in_the_internet_is_requested_through_the_proxy(
    services: FakeServices, proxy: ConnectProxy
) -> None:
    services.chat.pieces = ["A fox."]
    author = OpenAIAuthor(AuthorSettings(provider="openai", base_url="http://api.example.com/v1", model="m"))

    async def write() -> list[Any]:
        return [piece async for piece in author.write(Task(question="A fox?", image_num=0), (), 1)]

    assert asyncio.run(write())[0] == "A fox."
    assert proxy.requests == ["POST http://api.example.com/v1/chat/completions"]


def test_a_service_with_tls_is_requested_through_a_tunnel(tunnel: ConnectProxy) -> None:
    with pytest.raises(InfrastructureFault, match="404"):
        call("https://api.example.com/v1")
    assert tunnel.requests == ["CONNECT api.example.com:443"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_service_on_this_machine_is_requested_directly(
    services: FakeServices, proxy: ConnectProxy, host: str
) -> None:
    assert call(f"http://{host}:{port_of(services.url)}/v1/images/generations")
    assert proxy.requests == []


def test_a_service_with_an_internal_address_is_requested_directly(
    services: FakeServices, proxy: ConnectProxy, names: Names
) -> None:
    names["judge.example.com"] = "127.0.0.1"
    assert call(f"http://judge.example.com:{port_of(services.url)}/v1/images/generations")
    assert proxy.requests == []


def test_the_password_of_a_proxy_is_sent_and_never_shown(
    services: FakeServices, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.user = "me:secret"
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:secret@"))
    assert call("http://api.example.com/v1/images/generations")
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    with pytest.raises(InfrastructureFault, match=r"through the proxy http://127\.0\.0\.1:9") as caught:
        call("http://api.example.com/v1/images/generations")
    assert caught.value.cause is Cause.PROVIDER_DOWN
    assert "secret" not in str(caught.value)


def test_a_proxy_that_refuses_is_named(tunnel: ConnectProxy) -> None:
    tunnel.user = "me:secret"
    with pytest.raises(InfrastructureFault, match=f"through the proxy {tunnel.url}"):
        call("https://api.example.com/v1")


def test_the_proxy_gets_the_address_of_a_picture_that_was_checked_here(
    tunnel: ConnectProxy, names: Names
) -> None:
    names["pictures.example.com"] = PUBLIC
    assert had(PICTURE) == png()
    assert tunnel.requests == [f"CONNECT {PUBLIC}:443"]


@pytest.mark.parametrize("trust_proxy", [False, True])
@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.0.0.192", "198.18.0.7"])
def test_an_image_with_an_internal_address_is_not_requested(
    tunnel: ConnectProxy, names: Names, address: str, trust_proxy: bool
) -> None:
    names["pictures.example.com"] = address
    with pytest.raises(http.Refused):
        had(PICTURE, trust_proxy=trust_proxy)
    assert tunnel.requests == []


@pytest.mark.parametrize("trust_proxy", [False, True])
def test_the_proxy_follows_no_redirect_to_an_internal_address(
    tunnel: ConnectProxy, names: Names, trust_proxy: bool
) -> None:
    names["pictures.example.com"] = PUBLIC
    with pytest.raises(http.Refused):
        had("https://pictures.example.com/away", trust_proxy=trust_proxy)
    assert len(tunnel.requests) == 1


def test_a_name_that_cannot_be_checked_here_is_for_a_trusted_proxy_only(
    tunnel: ConnectProxy,
) -> None:
    with pytest.raises(InfrastructureFault) as caught:
        had(PICTURE)
    assert caught.value.cause is Cause.HOST_DOWN
    assert tunnel.requests == []
    assert had(PICTURE, trust_proxy=True) == png()
    assert tunnel.requests == ["CONNECT pictures.example.com:443"]


def test_plain_http_goes_through_a_proxy_only_where_it_is_trusted(
    services: FakeServices, proxy: ConnectProxy, names: Names
) -> None:
    names["pictures.example.com"] = PUBLIC
    with pytest.raises(http.Refused, match="trust_proxy"):
        had("http://pictures.example.com/picture.png")
    assert proxy.requests == []
    assert had("http://pictures.example.com/picture.png", trust_proxy=True) == png("orange")
    assert proxy.requests == ["GET http://pictures.example.com/picture.png"]


def test_a_whole_search_through_the_proxy(
    services: FakeServices, proxy: ConnectProxy, tunnel: ConnectProxy
) -> None:
    services.results = [{"title": "A fox", "original": PICTURE}]
    settings = SearchSettings(provider="serpapi", base_url="http://serpapi.example.com", trust_proxy=True)
    made = provider_calls.search("a fox", settings, deadline=time.time() + 20)
    assert made.source["url"] == PICTURE
    assert [one.partition("?")[0] for one in proxy.requests] == ["GET http://serpapi.example.com/search"]
    assert tunnel.requests == ["CONNECT pictures.example.com:443"]
