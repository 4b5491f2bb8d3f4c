"""A network call that hangs keeps no thread and no slot: its deadline or a cancellation ends it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import provider_calls
import pytest
from conftest import StartWorker
from fake_services import KEY, FakeServices
from hostile_server import HostileServer
from name_server import NameServer
from waiting import until, wait_until

from rewards.judges import TEXT_KIND
from rewards.judges.served import structured
from rewards.settings import JudgeEndpoint
from workers import event_loop
from workers.client.client import QueueClient
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import DiffusionPayload, Failure, Request
from workers.providers.http import names
from workers.settings import ImageModelSettings, SearchSettings
from workers.storage.blobs import BlobStore

PATIENCE_S = 30.0
HANGS_S = 0.5  # the time of a call that hangs


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    monkeypatch.setenv("SERP_API_KEY", KEY)
    with FakeServices() as running:
        yield running


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def drawn_by(url: str, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> Any:
    settings = ImageModelSettings(provider="openai", base_url=url, model="m")
    return provider_calls.generate(
        "a fox", settings, seed=1, deadline=time.time() + seconds, cancelled=cancelled
    )


def judged_by(url: str, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> Any:
    request = Request.make(TEXT_KIND, DiffusionPayload(prompt="x"), timeout_s=seconds)
    ctx = JobContext(request, BlobStore("memory://"), cancelled=cancelled)
    chat = [{"role": "user", "content": "Is it good?"}]
    return structured.answer(JudgeEndpoint(model="m"), url, chat, {}, "verdict", ctx, "judge")


def open_calls() -> int:
    """How many coroutines of jobs run on the process's loop."""
    return len(asyncio.all_tasks(event_loop.process_loop()))


def threads() -> int:
    """The threads of this process, including those of C libraries."""
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(params=["/never", "/drip-of-headers", "/drip", "no name"])
def hanging(
    request: pytest.FixtureRequest,
    hostile: HostileServer,
    name_server: NameServer,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The base URL of a service that hangs, and no look-up ends by itself during the test."""
    monkeypatch.setattr(names, "TRIES", 100)
    monkeypatch.setattr(names, "TRUSTED_RESOLVE_S", 10 * PATIENCE_S)
    if request.param == "no name":
        return "http://images.slow.example/v1"
    return hostile.url + request.param


def test_threads_are_free_at_the_deadline_and_other_calls_go_on(hanging: str, services: FakeServices) -> None:
    named = services.url.replace("127.0.0.1", "localhost")
    assert drawn_by(f"{named}/v1", PATIENCE_S).image  # starts the threads that stay: of the loop, of c-ares
    before = threads()
    with ThreadPoolExecutor(8) as slots:
        hung = [slots.submit(drawn_by, hanging, HANGS_S) for _ in range(8)]
        wait_until(lambda: open_calls() >= 8)
        assert drawn_by(f"{services.url}/v1", PATIENCE_S).image
        for one in hung:
            with pytest.raises(InfrastructureFault) as caught:
                one.result(PATIENCE_S)
            assert (caught.value.cause, caught.value.provider) == (Cause.TIMEOUT, "openai")
    wait_until(lambda: open_calls() == 0)
    wait_until(lambda: threads() <= before)


@pytest.mark.parametrize("call", [drawn_by, judged_by])
def test_a_cancelled_request_cancels_its_call(hanging: str, call: Callable[..., Any]) -> None:
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as slots:
        hung = slots.submit(call, hanging, 10 * PATIENCE_S, cancelled.is_set)
        wait_until(lambda: open_calls() == 1)
        cancelled.set()
        with pytest.raises(InfrastructureFault) as caught:
            hung.result(PATIENCE_S)
    assert caught.value.cause is Cause.CANCELLED
    wait_until(lambda: open_calls() == 0)


def test_a_search_whose_results_hang_leaves_nothing_behind(
    services: FakeServices, hostile: HostileServer, name_server: NameServer
) -> None:
    urls = ["http://a.slow.example/fox.png", f"{hostile.url}/never", f"{hostile.url}/drip"]
    services.results = [{"title": "A fox", "original": url} for url in urls]
    settings = SearchSettings(provider="serpapi", base_url=services.url, allow_private_addresses=True)
    with pytest.raises(InfrastructureFault) as caught:
        provider_calls.search("a fox", settings, deadline=time.time() + 4.0)
    assert caught.value.cause is Cause.HOST_DOWN
    wait_until(lambda: open_calls() == 0)


async def test_hung_calls_of_a_worker_free_their_slots(
    worker: StartWorker, client: QueueClient, config_file: Path, hostile: HostileServer
) -> None:
    """By the time limit of one, and by the cancellation of the other."""
    remote = {"provider": "openai", "base_url": f"{hostile.url}/never", "model": "m"}
    document = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(document | {"tools": {"diffusion": remote}}))
    worker(["diffusion"], 2)

    async def post(limit_s: float) -> Any:
        payload = DiffusionPayload(prompt="a fox")
        return await client.post(
            Request.make("diffusion", payload, timeout_s=PATIENCE_S + limit_s, limit_s=limit_s)
        )

    late, dropped = await post(2.0), await post(10 * PATIENCE_S)
    await until(lambda: len(hostile.requests) == 2)
    await client.cancel(dropped.request.request_id)
    after = [await post(2.0) for _ in range(4)]
    async with asyncio.timeout(2 * PATIENCE_S):
        outcomes = [await one.outcome() for one in (late, *after)]
    for outcome in outcomes:
        assert isinstance(outcome.result, Failure)
        assert outcome.result.cause is Cause.TIMEOUT
    # Both slots were free for them: each was started, and asked for its image.
    assert len(hostile.requests) == 6
