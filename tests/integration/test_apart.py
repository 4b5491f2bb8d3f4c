"""Untrusted pages occupy only their own name look-ups, decoders and breakers, not those of others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import provider_calls
import pytest
from fake_services import KEY, FakeServices, png
from hostile_server import HostileServer
from name_server import NameServer

from rewards.judges.pictures import jpeg_uri
from workers import event_loop, images
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api, names
from workers.providers.provider import ProviderImage
from workers.providers.search import serpapi
from workers.sandbox import decoders
from workers.settings import SearchSettings

PATIENCE_S = 30.0


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    monkeypatch.setenv("SERP_API_KEY", KEY)
    with FakeServices() as running:
        yield running


def settings(services: FakeServices, **more: Any) -> SearchSettings:
    return SearchSettings(
        provider="serpapi", base_url=services.url, allow_private_addresses=True, max_candidates=50, **more
    )


def look(services: FakeServices, seconds: float = PATIENCE_S) -> ProviderImage:
    return provider_calls.search("a fox", settings(services), deadline=time.time() + seconds)


def verdict(services: FakeServices) -> api.Answer:
    """What a judge says that is known by its name."""
    url = f"http://localhost:{services.url.rpartition(':')[2]}/v1/chat/completions"
    body = {"model": "m", "messages": [], "response_format": {"type": "json_schema"}}
    call = api.Call(provider="judge", method="POST", url=url, body=body, deadline=time.time() + PATIENCE_S)
    return asyncio.run(api.send(call))


def test_unresolvable_names_of_pages_do_not_delay_judges(
    services: FakeServices, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.0)
    monkeypatch.setattr(names, "RESOLVE_S", 2.0)
    services.results = [{"title": "A fox", "original": f"http://{n}.slow.example/fox.png"} for n in range(5)]
    with ThreadPoolExecutor(2) as searches:
        ended = [searches.submit(look, services) for _ in range(2)]
        for _ in range(10):  # all of them are asked for
            name_server.queries.get(timeout=PATIENCE_S)
        assert verdict(services)["model"] == "served-judge"
        for one in ended:
            with pytest.raises(InfrastructureFault) as caught:
                one.result()
            assert (caught.value.cause, caught.value.provider) == (Cause.HOST_DOWN, "")


def test_lookups_time_out_and_a_search_has_a_limited_number(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "RESOLVE_S", 0.2)

    async def resolve() -> list[Any]:
        resolver = names.Resolver(allow_private=False)
        hosts = [f"{n}.slow.example" for n in range(names.NAMES_AT_ONCE + 2)]
        return await asyncio.gather(*map(resolver.resolve, hosts), return_exceptions=True)

    found = asyncio.run(resolve())
    assert [type(one) for one in found] == [socket.gaierror] * len(found)
    assert name_server.queries.qsize() == names.NAMES_AT_ONCE


def test_a_search_finds_an_image_beside_unresolvable_names(
    services: FakeServices, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.05)
    services.results = [{"title": "A fox", "original": f"http://{n}.slow.example/fox.png"} for n in range(5)]
    services.results.append({"title": "A fox", "original": f"{services.url}/picture.png"})
    assert look(services).source["rank"] == 5


@pytest.fixture
def one_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoders of this process as at its start, one of each kind."""
    monkeypatch.setattr(decoders, "AT_ONCE", 1)
    monkeypatch.setattr(decoders, "_WAIT_S", 0.05)
    fresh: dict[Any, decoders.Decoders] = {}
    monkeypatch.setattr(decoders, "_of_processes", fresh)
    yield
    for one in fresh.values():
        one.close()


def test_images_from_outside_do_not_delay_judges(one_decoder: None) -> None:
    with decoders.of_this_process("outside")._zygote():
        assert jpeg_uri(png(), 10_000)
        with pytest.raises(InfrastructureFault) as caught:
            images.checked(png())
        assert caught.value.cause is Cause.TIMEOUT


def test_one_search_decodes_a_limited_number_of_images_at_once(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.0)
    decoding, most = 0, 0

    async def checked_async(_: bytes, *, provider: str) -> bytes:
        nonlocal decoding, most
        decoding += 1
        most = max(most, decoding)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):  # the others are there by then
                await asyncio.Event().wait()
        decoding -= 1
        raise InfrastructureFault(Cause.BAD_ANSWER, "no picture")

    monkeypatch.setattr(images, "checked_async", checked_async)
    services.results = [{"title": "A fox", "original": f"{services.url}/picture.png"}] * 6
    with pytest.raises(InfrastructureFault):
        look(services)
    assert most == serpapi.DECODING_AT_ONCE


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


@pytest.mark.parametrize(
    ("paths", "cause", "provider"),
    [
        (["/hangs-up", "/no-http"], Cause.HOST_DOWN, ""),
        (["/gone", "/hangs-up"], Cause.HOST_DOWN, ""),
        (["/gone", "/round"], Cause.BAD_ANSWER, serpapi.NAME),
    ],
)
def test_only_bad_answers_count_against_the_search_engine(
    services: FakeServices, hostile: HostileServer, paths: list[str], cause: Cause, provider: str
) -> None:
    services.results = [{"title": "A fox", "original": hostile.url + path} for path in paths]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert (caught.value.cause, caught.value.provider) == (cause, provider)


def test_a_failed_jail_outweighs_failures_of_hosts(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def checked_async(_: bytes, *, provider: str) -> bytes:
        raise InfrastructureFault(Cause.SANDBOX, "no zygote")

    monkeypatch.setattr(images, "checked_async", checked_async)
    services.results = [{"original": f"{services.url}/picture.png"}, {"original": f"{services.url}/gone.png"}]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert (caught.value.cause, caught.value.provider) == (Cause.SANDBOX, "")


def test_a_late_service_is_named_in_the_failure(services: FakeServices) -> None:
    """A failure without a provider changes no breaker."""
    services.judge.delay_s = 30
    with pytest.raises(InfrastructureFault) as caught:
        event_loop.run(late(services, 0.5), time.time() + 0.5)
    assert (caught.value.cause, caught.value.provider) == (Cause.TIMEOUT, "judge")


async def late(services: FakeServices, seconds: float) -> api.Answer:
    body = {"response_format": {"type": "json_schema"}}
    return await api.send(
        api.Call(
            provider="judge",
            method="POST",
            url=f"{services.url}/v1/chat/completions",
            body=body,
            deadline=time.time() + seconds,
        )
    )
