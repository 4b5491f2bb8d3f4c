"""What a hostile web server can do to a search: no long delay, no large memory; the next result is used."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import provider_calls
import pytest
from fake_services import KEY, FakeServices, png
from hostile_images import FOREIGN, POLYGLOTS, REFUSED, SVG, jpeg_of_scans
from hostile_server import MEBIBYTE, TRICKS, HostileServer
from PIL import Image

from workers import images
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import client as http
from workers.providers.provider import ProviderImage
from workers.providers.search import serpapi
from workers.sandbox import decoders
from workers.settings import ImageModelSettings, SearchSettings

PATIENCE_S = 40.0
BUFFERS = 16 * MEBIBYTE  # what lies between the two programs when one of them stops
# What waits for more until its time is over, and what is refused for what it is.
SLOW = ("/drip", "/drip-of-headers", "/flood-of-promises", "/never")
BAD = ("/endless", "/endless-chunks", "/chunk-without-end", "/claims-gigabytes", "/gzip-bomb",
       "/hops/50", "/round")  # fmt: skip
BROKEN = ("/claims-more", "/claims-less", "/claims-two-lengths", "/claims-nonsense", "/flood-of-headers",
          "/header-without-end", "/flood-of-cookies", "/hangs-up", "/no-http")  # fmt: skip


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    monkeypatch.setenv("SERP_API_KEY", KEY)
    with FakeServices() as running:
        yield running


def look(services: FakeServices, urls: list[str]) -> ProviderImage:
    """A search that finds pictures at `urls`."""
    services.results = [{"title": "A fox", "original": url} for url in urls]
    settings = SearchSettings(
        provider="serpapi", base_url=services.url, allow_private_addresses=True, max_candidates=50
    )
    return provider_calls.search("a fox", settings, deadline=time.time() + PATIENCE_S)


def had(url: str, *, seconds: float = PATIENCE_S, allow_private: bool = True) -> bytes:
    """What a search does with one result: fetched, and through the gate."""

    async def once() -> bytes:
        async with http.guarded_session(allow_private=allow_private) as session:
            data = await http.fetch(
                session,
                url,
                deadline=time.time() + seconds,
                allow_private=allow_private,
                limits=http.FetchLimits(max_bytes=MEBIBYTE),
            )
        return await images.checked_async(data, provider="serpapi")

    return asyncio.run(once())


def fault(url: str, **options: Any) -> InfrastructureFault:
    with pytest.raises(InfrastructureFault) as caught:
        had(url, **options)
    return caught.value


@pytest.mark.parametrize("path", SLOW)
def test_slow_hosts_are_abandoned_at_the_deadline(hostile: HostileServer, path: str) -> None:
    error = fault(hostile.url + path, seconds=0.5)
    assert (error.cause, error.detail) == (Cause.HOST_DOWN, "the image's host took too long")


@pytest.mark.parametrize("path", BAD)
def test_too_many_bytes_or_no_image_is_a_bad_answer(hostile: HostileServer, path: str) -> None:
    assert fault(hostile.url + path).cause is Cause.BAD_ANSWER
    assert hostile.sent < BUFFERS
    assert len(hostile.requests) <= http.DEFAULT_LIMITS.max_redirects + 1


@pytest.mark.parametrize("path", BROKEN)
def test_a_host_that_breaks_http_is_down(hostile: HostileServer, path: str) -> None:
    assert fault(hostile.url + path).cause is Cause.HOST_DOWN
    assert hostile.sent < BUFFERS


def made_at(services: FakeServices, url: str, *, allow_private: bool = True) -> ProviderImage:
    """What an images service has drawn, and keeps at `url`."""
    services.script["/v1/images/generations"] = [(200, {}, json.dumps({"data": [{"url": url}]}))]
    settings = ImageModelSettings(
        provider="openai",
        base_url=f"{services.url}/v1",
        model="m",
        allow_private_addresses=allow_private,
    )
    return provider_calls.generate("a fox", settings, seed=1, deadline=time.time() + PATIENCE_S)


@pytest.mark.parametrize("path", [*BAD, *BROKEN])
def test_urls_of_an_images_service_are_untrusted(
    hostile: HostileServer, services: FakeServices, path: str
) -> None:
    with pytest.raises(InfrastructureFault) as caught:
        made_at(services, hostile.url + path)
    assert caught.value.cause in (Cause.BAD_ANSWER, Cause.HOST_DOWN)
    assert hostile.sent < 4 * http.DEFAULT_LIMITS.max_bytes + BUFFERS  # chunks cost more than what they hold


def test_urls_of_an_images_service_into_the_private_network_are_refused(
    hostile: HostileServer, services: FakeServices
) -> None:
    hostile.files["/secret"] = png()
    assert made_at(services, hostile.url + "/secret").image
    with pytest.raises(http.Refused):
        made_at(services, hostile.url + "/secret", allow_private=False)
    assert hostile.requests == ["/secret"]


def test_the_body_of_a_redirect_is_not_read(hostile: HostileServer) -> None:
    hostile.files["/file.png"] = png()
    assert had(hostile.url + "/redirect-without-end")
    assert hostile.sent < BUFFERS


def test_hostile_results_are_skipped_and_the_first_image_ends_the_search(
    hostile: HostileServer, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.02)
    # None of the slow ones can be waited for.
    limits = replace(serpapi.LIMITS, max_bytes=MEBIBYTE, timeout_s=2 * PATIENCE_S)
    monkeypatch.setattr(serpapi, "LIMITS", limits)
    tricks = [*SLOW, *BAD, *BROKEN]
    assert {f"/{path.split('/')[1]}" for path in tricks} | {"/redirect-without-end"} == set(TRICKS)
    made = look(services, [*(hostile.url + path for path in tricks), f"{services.url}/picture.png"])
    assert made.source["rank"] == len(tricks)


def test_bad_files_are_skipped_in_order_of_rank_until_the_first_good_one(
    hostile: HostileServer, services: FakeServices
) -> None:
    hostile.files = {f"/{name}": data for name, data in REFUSED.items()} | {"/good": png(), "/better": png()}
    made = look(services, [hostile.url + path for path in hostile.files])
    assert made.source["url"] == hostile.url + "/good"
    assert hostile.requests == list(hostile.files)[:-1]


def test_an_image_that_decodes_slowly_does_not_delay_others(
    hostile: HostileServer, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.2)
    hostile.files = {"/labour": jpeg_of_scans(3000, 20_000), "/good": png()}
    decoded: list[bytes] = []
    decode = decoders.Decoders.decode

    def record(self: decoders.Decoders, data: bytes, options: decoders.DecodeOptions) -> decoders.Decoded:
        try:
            return decode(self, data, options)
        finally:
            decoded.append(data)

    monkeypatch.setattr(decoders.Decoders, "decode", record)
    assert look(services, [hostile.url + path for path in hostile.files]).source["rank"] == 1
    assert decoded == [hostile.files["/good"]], "the slow image is still being decoded"


@pytest.mark.parametrize("name", POLYGLOTS)
def test_a_polyglot_file_is_stored_as_a_plain_image(hostile: HostileServer, name: str) -> None:
    hostile.files[f"/{name}"] = POLYGLOTS[name]
    image = had(f"{hostile.url}/{name}")
    assert FOREIGN not in image
    assert FOREIGN[::8] not in image
    assert b"PK\3\4" not in image
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.format in ("PNG", "JPEG")


@pytest.mark.parametrize(
    ("kind", "body"), [("text/html", png()), ("image/svg+xml", png()), ("application/zip", png())]
)
def test_the_type_comes_from_the_bytes_not_the_header(hostile: HostileServer, kind: str, body: bytes) -> None:
    hostile.files, hostile.kinds = {"/a": body, "/b": SVG}, {"/a": kind, "/b": "image/png"}
    assert had(hostile.url + "/a")
    assert fault(hostile.url + "/b").cause is Cause.BAD_ANSWER


HOME = [
    "http://127.0.0.1:{port}/secret",
    "//127.0.0.1:{port}/secret",
    "http://localhost:{port}/secret",
    "http://LOCALHOST:{port}/secret",
    "http://[::1]:{port}/secret",
    "http://[::ffff:127.0.0.1]:{port}/secret",
    "http://[::ffff:7f00:1]:{port}/secret",
    "http://[64:ff9b::7f00:1]:{port}/secret",
    "http://2130706433:{port}/secret",
    "http://017700000001:{port}/secret",
    "http://0x7f000001:{port}/secret",
    "http://0177.0.0.1:{port}/secret",
    "http://0x7f.0.0.1:{port}/secret",
    "http://127.1:{port}/secret",
    "http://127.0.1:{port}/secret",
    "http://0:{port}/secret",
    "http://0.0.0.0:{port}/secret",
    "http://①②⑦.⓪.⓪.①:{port}/secret",
    "http://１２７.０.０.１:{port}/secret",
    "http://127。0。0。1:{port}/secret",
    "http://user:password@127.0.0.1:{port}/secret",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://10.0.0.1/",
    "http://[fe80::1%25eth0]/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:{port}/secret",
    "http://",
    "",
]


@pytest.fixture
def first_hop(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the address of the hostile server count as public; its other addresses stay private."""
    resolve = http.Resolver.resolve

    async def found(self: http.Resolver, host: str, port: int = 0, family: Any = 0) -> Any:
        if host != "public.example":
            return await resolve(self, host, port, family)
        return await resolve(http.Resolver(allow_private=True), "127.0.0.1", port, family)

    monkeypatch.setattr(http.Resolver, "resolve", found)
    return f"http://public.example:{hostile.port}"


@pytest.mark.parametrize("target", HOME)
def test_redirects_into_the_private_network_are_refused(
    hostile: HostileServer, first_hop: str, target: str
) -> None:
    hostile.leads["/away"] = target.format(port=hostile.port)
    hostile.files["/secret"] = png()
    error = fault(first_hop + "/away", allow_private=False)
    assert isinstance(error, http.Refused)
    assert set(hostile.requests) == {"/away"}


def test_a_redirect_into_the_internet_is_followed(hostile: HostileServer, first_hop: str) -> None:
    """The URLs that the test above refuses are refused for their address."""
    hostile.leads["/away"] = f"{first_hop}/picture"
    hostile.files["/picture"] = png()
    assert had(first_hop + "/away", allow_private=False)
