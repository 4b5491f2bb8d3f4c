"""Every result of a job arrives as one typed outcome, through real Redis and workers of both pools."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import ask, request_for
from raw_queue import put_entry, put_message
from waiting import until

from workers.broker.dead_letters import dead_letters_key, read_dead_letters
from workers.client.client import QueueClient
from workers.errors import Cause, Fault, InfrastructureFault
from workers.messages import Failure, Outcome, Request
from workers.settings import QueueSettings


@pytest.mark.parametrize("kind", ["code", "search"])
async def test_each_end_of_a_job_is_a_typed_outcome(
    kind: str, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker([kind], app="queue_app")
    async with QueueClient(queue_settings) as client:
        answered = await ask(client, Order(), kind, seed=7)
        ends = [
            await ask(client, Order(act=act), kind) for act in ("fail_model", "fail_infrastructure", "raise")
        ]
    assert answered.ok
    assert answered.result.source["seed"] == 7
    assert [(end.result.cause, end.result.fault) for end in ends if isinstance(end.result, Failure)] == [
        (Cause.NO_HIT, Fault.MODEL),
        (Cause.QUOTA, Fault.INFRASTRUCTURE),
        (Cause.INTERNAL, Fault.INFRASTRUCTURE),
    ]


@pytest.mark.parametrize(("kind", "concurrency"), [("code", 2), ("search", 8)])
async def test_200_requests_at_once_each_get_their_own_outcome(
    kind: str, concurrency: int, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker([kind], concurrency, app="queue_app")
    events: list[tuple[str, str]] = []

    def posted(request: Request) -> None:
        events.append(("posted", request.request_id))

    def ended(outcome: Outcome) -> None:
        events.append(("ended", outcome.request_id))

    async with QueueClient(queue_settings, on_posted=posted, on_outcome=ended) as client:
        outcomes = await asyncio.gather(*(ask(client, Order(), kind, seed=n) for n in range(200)))
        assert client.in_flight == 0
    assert [outcome.result.source["seed"] for outcome in outcomes if outcome.ok] == list(range(200))
    for outcome in outcomes:
        mine = [what for what, request_id in events if request_id == outcome.request_id]
        assert mine == ["posted", "ended"]


async def test_posting_500_requests_does_not_block_the_loop(queue_settings: QueueSettings) -> None:
    """Another task of the loop runs between any few requests of a burst."""
    posted_between_turns = [0]

    async def take_turns() -> None:
        while True:
            await asyncio.sleep(0)
            posted_between_turns.append(0)

    def count(_: Request) -> None:
        posted_between_turns[-1] += 1

    async with QueueClient(queue_settings, on_posted=count) as client:
        turns = asyncio.create_task(take_turns())
        await asyncio.gather(*(client.post(request_for(Order())) for _ in range(500)))
        turns.cancel()
        assert client.in_flight == sum(posted_between_turns) == 500
    assert max(posted_between_turns) <= 100


async def test_an_outcome_may_be_awaited_by_several_and_again(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    async with QueueClient(queue_settings) as client:
        posted = await client.post(request_for(Order(seconds=0.2)))
        assert [request for request, _ in client.pending()] == [posted.request]
        first, second = await asyncio.gather(posted.outcome(), posted.outcome())
        assert first is second is await posted.outcome()


async def test_an_invalid_payload_is_dead_lettered(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    request = request_for(Order()).model_copy(update={"payload": {"act": "fly"}})
    async with QueueClient(queue_settings) as client:
        outcome = await (await client.post(request)).outcome()
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is Cause.BAD_MESSAGE
    [letter] = read_dead_letters(queue_settings.url)
    assert (letter.queue, letter.reason, letter.detail) == ("code", "invalid", outcome.result.detail)
    assert request.request_id in letter.payload


@pytest.mark.parametrize("named", [True, False], ids=["record", "entry"])
async def test_a_worker_survives_a_message_of_celery(
    named: bool, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    process = worker(["code"], app="queue_app")
    message = json.dumps(
        {"body": "W10=", "headers": {"task": "llmi.code"}, "properties": {}, "more": "x" * 128}
    )
    with redis.Redis.from_url(queue_settings.url) as raw:
        if named:
            put_message(raw, "code", "from-celery", message)
        else:
            put_entry(raw, "code", message)
        await until(lambda: raw.llen(dead_letters_key("invalid")) == 1)
    async with QueueClient(queue_settings) as client:
        assert (await ask(client, Order())).ok
    assert process.alive


async def test_an_unreadable_request_is_a_bad_message(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    request = request_for(Order()).model_copy(update={"version": 99})
    async with QueueClient(queue_settings) as client:
        outcome = await (await client.post(request)).outcome()
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is Cause.BAD_MESSAGE
    assert "version" in outcome.result.detail


async def test_an_unknown_kind_is_refused_before_it_is_posted(queue_settings: QueueSettings) -> None:
    request = request_for(Order()).model_copy(update={"kind": "video"})
    async with QueueClient(queue_settings) as client:
        with pytest.raises(ValueError, match="video"):
            await client.post(request)
        assert client.in_flight == 0


async def test_unreachable_redis_is_reported_at_the_deadline(queue_settings: QueueSettings) -> None:
    nowhere = QueueSettings(redis_url="redis://127.0.0.1:1/0")
    events: list[object] = []
    async with QueueClient(nowhere, on_posted=events.append, on_outcome=events.append) as client:
        with pytest.raises(InfrastructureFault) as raised:
            await client.post(request_for(Order(), timeout_s=1.0))
        assert raised.value.cause is Cause.PROVIDER_DOWN
        assert client.in_flight == 0
    assert events == []


async def test_a_lone_surrogate_is_a_bad_message_and_affects_no_other_request(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    half = request_for(Order()).model_copy(update={"payload": {"act": "\ud83d"}})
    async with QueueClient(queue_settings) as client:
        with pytest.raises(InfrastructureFault) as raised:
            await client.post(half)
        assert raised.value.cause is Cause.BAD_MESSAGE
        assert (await ask(client, Order())).ok
