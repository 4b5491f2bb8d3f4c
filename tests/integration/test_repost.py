"""A client reposts requests that Redis has lost, within a lease."""

from __future__ import annotations

import asyncio

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, request_for
from waiting import until

from workers.broker.claims import claim
from workers.broker.keys import queue_lists, record_key
from workers.broker.posting import prepare
from workers.client.client import QueueClient
from workers.client.replies import CHECKS_PER_LEASE
from workers.messages import Outcome
from workers.settings import QueueSettings

CODE = queue_lists("code")[1]


def queued(raw: redis.Redis, key: str = CODE) -> list[str]:
    """The ids in a list, the next one first."""
    return [request_id.decode() for request_id in raw.lrange(key, 0, -1)[::-1]]


async def test_requests_that_redis_lost_are_reposted_in_order(client: QueueClient, raw: redis.Redis) -> None:
    posted = [await client.post(request_for(Order(), seed=seed)) for seed in range(20)]
    raw.flushall()
    await until(lambda: raw.llen(CODE) == len(posted))
    assert queued(raw) == [one.request.request_id for one in posted]
    assert raw.exists(*(record_key(one.request.request_id) for one in posted)) == len(posted)


async def test_a_lost_request_is_found_in_one_check_within_a_lease(
    client: QueueClient, queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    posted = await client.post(request_for(Order()))
    assert client._replies._every_s <= queue_settings.lease_s / CHECKS_PER_LEASE
    raw.flushall()
    await client._replies.check([posted.request.request_id])
    await until(lambda: queued(raw) == [posted.request.request_id])


async def test_a_request_that_is_queued_held_or_over_is_not_reposted(
    client: QueueClient, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    handles = [await client.post(request_for(Order(), seed=seed)) for seed in range(2)]
    ids = [one.request.request_id for one in handles]
    [held] = claim(raw, ["code"], 1, "w", 60.0)
    assert held.request_id == ids[0]
    for _ in range(3):
        await client._replies.check(ids)
    assert queued(raw) == ids[1:]
    assert "reposted" not in caplog.text


async def test_a_lost_request_is_reposted_once_however_often_it_is_found(
    client: QueueClient, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    posted = await client.post(request_for(Order()))
    raw.flushall()
    await asyncio.gather(*(client._replies.check([posted.request.request_id]) for _ in range(5)))
    await until(lambda: "reposted lost request" in caplog.text)
    assert queued(raw) == [posted.request.request_id]
    assert caplog.text.count("reposted lost request") == 1


async def test_a_full_queue_does_not_delay_reposts_to_others(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    narrow = queue_settings.model_copy(update={"max_waiting": 3})
    async with QueueClient(narrow) as client:
        for seed in range(3):
            await client.post(request_for(Order(), seed=seed))
        free = await client.post(request_for(Order(), "search"))
        raw.flushall()
        async with QueueClient(narrow) as other:  # it fills the queue first
            for seed in range(3):
                await other.post(request_for(Order(), seed=seed))
            await until(lambda: queued(raw, queue_lists("search")[1]) == [free.request.request_id])
            assert raw.llen(CODE) == 3


async def test_a_failed_repost_does_not_end_the_checks(client: QueueClient, raw: redis.Redis) -> None:
    """A request that has changed since, and cannot be written any more."""
    broken = await client.post(request_for(Order()))
    whole = await client.post(request_for(Order(), seed=1))
    broken.request = broken.request.model_copy(update={"payload": {"act": object()}})
    raw.flushall()
    await until(lambda: queued(raw) == [whole.request.request_id])
    raw.flushall()
    await until(lambda: queued(raw) == [whole.request.request_id])


async def test_a_running_request_that_redis_lost_gets_one_outcome(
    start_worker: StartWorker,
    client: QueueClient,
    raw: redis.Redis,
    notes: Notes,
    received: list[Outcome],
) -> None:
    """Its job runs on, and a second worker may run it too."""
    start_worker("code", 2)
    posted = await client.post(request_for(notes.order(seconds=3.0)))
    await notes.started()
    raw.flushall()
    assert (await posted.outcome()).ok
    assert [outcome.request_id for outcome in received] == [posted.request.request_id]


def test_a_repost_keeps_the_deadline() -> None:
    """Posting sends what is left of the time, not the time that the request had."""
    request = request_for(Order(), timeout_s=100.0)
    first, later = (prepare(request, "", request.deadline - left_s) for left_s in (100.0, 40.0))
    assert (first.left_s, later.left_s) == pytest.approx((100.0, 40.0))
