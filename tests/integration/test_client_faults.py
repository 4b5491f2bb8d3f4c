"""Faults in the client: no request and no outcome is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, ask, cause_of, request_for
from waiting import until

from workers.broker.keys import outcome_key
from workers.client.client import QueueClient
from workers.client.replies import ReplyReader
from workers.errors import Cause
from workers.messages import Outcome, Success
from workers.settings import QueueSettings


@pytest.fixture
async def raw(queue_settings: QueueSettings) -> AsyncIterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


async def nothing(*_: object) -> None:
    await asyncio.Event().wait()


def suspend(seconds: float) -> None:
    """Block the loop too, as in a process that is suspended."""
    time.sleep(seconds)


async def test_a_suspended_client_finds_the_outcome_that_came_before_its_deadline(
    client: QueueClient, raw: redis.Redis
) -> None:
    """Regression: the timers of a resumed process fire before it has read anything."""
    posted = await client.post(request_for(Order(), timeout_s=0.5))
    outcome = Outcome(request_id=posted.request.request_id, kind="code", result=Success())
    raw.set(outcome_key(outcome.request_id), outcome.model_dump_json())  # in no reply stream
    suspend(3.5)  # beyond deadline and grace
    assert (await posted.outcome()).ok


async def test_a_failed_service_of_the_client_is_restarted(
    start_worker: StartWorker, client: QueueClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it ended silently, and every later request with it."""
    start_worker()
    send, broken = client._publisher._send, asyncio.Event()

    async def once(_: object) -> None:
        monkeypatch.setattr(client._publisher, "_send", send)
        broken.set()
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(client._publisher, "_send", once)
    assert (await ask(client, Order())).ok
    assert broken.is_set()


async def test_an_invalid_entry_of_the_reply_stream_is_ignored(
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    raw: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReplyReader, "run_checks", nothing)  # the stream alone reports
    start_worker()
    async with QueueClient(queue_settings) as client:
        raw.xadd(client._stream, {"odd": "one"})
        raw.xadd(client._stream, {"id": b"\xff"})
        raw.xadd(client._stream, {"id": "of nobody"})
        assert (await ask(client, Order(), timeout_s=10.0)).ok


async def test_a_cancellation_that_redis_refused_is_stored_later(
    client: QueueClient, raw: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    posted = await client.post(request_for(notes.order()))
    raw.config_set("min-replicas-to-write", "1")
    try:
        await client.cancel(posted.request.request_id)
        assert cause_of(await posted.outcome()) is Cause.CANCELLED
    finally:
        raw.config_set("min-replicas-to-write", "0")
    await until(lambda: bool(raw.exists(f"llmi:outcome:{posted.request.request_id}")))
    start_worker()
    assert (await ask(client, Order())).ok
    assert notes.starts == []
