"""A client reposts lost messages within a lease."""

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
    """A message that a worker popped and lost."""

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


async def test_a_message_missing_in_two_checks_is_reposted_within_a_lease(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    every = queue_settings.lease_s / CHECKS_PER_LEASE
    now = time.monotonic() + every
    await reposter.check(now)
    assert lost.again == []
    await reposter.check(now + every)
    assert lost.again == [lost.posted.request.request_id]
    assert 2 * every < queue_settings.lease_s


async def test_a_message_held_at_the_second_check_is_not_reposted(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    now = time.monotonic() + queue_settings.lease_s
    await reposter.check(now)
    lost.raw.hset("unacked", lost.posted.tags[0], "taken")
    await reposter.check(now + queue_settings.lease_s)
    assert lost.again == []


async def test_messages_that_redis_lost_are_reposted_in_order(
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


async def test_a_request_that_was_just_posted_is_not_checked(
    lost: Lost, reposter: Reposter, queue_settings: QueueSettings
) -> None:
    for _ in range(3):
        await reposter.check(time.monotonic())
    assert lost.again == []


async def test_a_full_queue_does_not_delay_reposts_to_others(
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


async def test_a_failed_repost_does_not_end_the_task(lost: Lost, queue_settings: QueueSettings) -> None:
    async def publish(_: RequestHandle) -> None:
        raise InfrastructureFault(Cause.BAD_MESSAGE, "too large now")

    async with redis.asyncio.Redis.from_url(queue_settings.url) as raw:
        reposter = Reposter(raw, queue_settings, lambda: [lost.posted], publish)
        for look in (1, 2):
            await reposter.check(time.monotonic() + look * queue_settings.lease_s)
