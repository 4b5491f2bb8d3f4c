"""A request that is nowhere is posted again by its poster, within a lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio
from queue_jobs import Order
from queue_requests import request_for

from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.client.repost import CHECKS_PER_LEASE, Reposter
from workers.errors import Cause, InfrastructureFault
from workers.settings import QueueSettings


class Lost:
    """A request that a worker took off its list, and forgot."""

    def __init__(self, posted: RequestHandle, raw: redis.Redis):
        self.posted = posted
        self.raw = raw
        self.again: list[str] = []

    async def publish(self, posted: RequestHandle) -> None:
        self.again.append(posted.request.request_id)


@pytest.fixture
async def lost(client: QueueClient, queue_settings: QueueSettings) -> AsyncIterator[Lost]:
    posted = await client.post(request_for(Order()))
    with redis.Redis.from_url(queue_settings.url) as raw:
        assert raw.rpop("code") is not None
        yield Lost(posted, raw)


@pytest.fixture
async def reposter(lost: Lost, queue_settings: QueueSettings) -> AsyncIterator[Reposter]:
    async with redis.asyncio.Redis.from_url(queue_settings.url) as raw:
        yield Reposter(raw, queue_settings, lambda: [lost.posted], lost.publish)


async def test_what_is_missing_twice_is_posted_again_within_a_lease(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    every = queue_settings.lease_s / CHECKS_PER_LEASE
    now = time.monotonic() + every
    await reposter.check(now)
    assert lost.again == []
    await reposter.check(now + every)
    assert lost.again == [lost.posted.request.request_id]
    assert 2 * every < queue_settings.lease_s


async def test_what_a_worker_holds_by_the_second_look_is_left_to_it(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    now = time.monotonic() + queue_settings.lease_s
    await reposter.check(now)
    lost.raw.hset("unacked", lost.posted.tags[0], "taken")
    await reposter.check(now + queue_settings.lease_s)
    assert lost.again == []


async def test_what_redis_forgot_is_posted_again_in_its_order(
    client: QueueClient, queue_settings: QueueSettings
) -> None:
    posted = [await client.post(request_for(Order())) for _ in range(20)]
    again: list[RequestHandle] = []

    async def publish(one: RequestHandle) -> None:
        again.append(one)

    async with redis.asyncio.Redis.from_url(queue_settings.url) as raw:
        await raw.flushall()
        reposter = Reposter(raw, queue_settings, lambda: posted, publish)
        for look in (1, 2):
            await reposter.check(time.monotonic() + look * queue_settings.lease_s)
    assert again == posted


async def test_what_has_just_been_posted_is_not_looked_for(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    for _ in range(3):
        await reposter.check(time.monotonic())
    assert lost.again == []


async def test_one_whose_queue_has_no_room_holds_up_no_other(
    client: QueueClient, queue_settings: QueueSettings
) -> None:
    *stuck, free = [await client.post(request_for(Order(), seed=seed)) for seed in range(12)]
    again: list[RequestHandle] = []

    async def publish(one: RequestHandle) -> None:
        if one in stuck:
            await asyncio.Event().wait()
        again.append(one)

    async with redis.asyncio.Redis.from_url(queue_settings.url) as raw:
        await raw.flushall()
        reposter = Reposter(raw, queue_settings, lambda: [*stuck, free], publish)
        async with asyncio.timeout(2 * queue_settings.lease_s):
            for look in (1, 2):
                await reposter.check(time.monotonic() + look * queue_settings.lease_s)
    assert again == [free]


async def test_one_that_cannot_be_posted_again_ends_nothing(
    lost: Lost, queue_settings: QueueSettings
) -> None:
    async def publish(_: RequestHandle) -> None:
        raise InfrastructureFault(Cause.BAD_MESSAGE, "too large now")

    async with redis.asyncio.Redis.from_url(queue_settings.url) as raw:
        reposter = Reposter(raw, queue_settings, lambda: [lost.posted], publish)
        for look in (1, 2):
            await reposter.check(time.monotonic() + look * queue_settings.lease_s)
