"""The number of rollouts that hold a generation slot: published by rollout processes, read by the sampler.

Each rollout process keeps one field in a Redis hash; the sampler reads it together with the queues' depths.

Invariants:
- publishing and reading never stop a run: without an answer from Redis the count is unknown, and `Window`
  does not grow;
- a published count is valid for `FRESH_S` after it last changed, by the reader's own clock;
- the sampler polls at most once in `POLL_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import redis

from workers.broker.depths import QueueDepth, read_depths
from workers.redis_client import POLL_TIMEOUT_S, connect_redis, connect_redis_async
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
KEY = "llmi:writing"
PUBLISH_S = 0.5
POLL_S = 1.0
FRESH_S = 5.0
EXPIRE_S = 600


class InFlightCounter:
    """Counts the rollouts of one process that wait for the generator."""

    def __init__(self) -> None:
        self.generating = 0

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Count one rollout as generating within the block."""
        self.generating += 1
        try:
            yield
        finally:
            self.generating -= 1

    async def publish(self, settings: QueueSettings) -> None:
        """Publish the count every `PUBLISH_S` until cancelled. Errors of Redis are logged and skipped."""
        field, number = f"{socket.gethostname()}:{os.getpid()}", itertools.count()
        client = connect_redis_async(settings.url, POLL_TIMEOUT_S)
        async with client:
            while True:
                pipeline = client.pipeline(transaction=False)
                pipeline.hset(KEY, field, json.dumps([self.generating, next(number)]))
                pipeline.expire(KEY, EXPIRE_S)
                try:
                    await pipeline.execute()
                except (redis.RedisError, OSError) as error:
                    logger.debug("in-flight count not published: %s", error)
                await asyncio.sleep(PUBLISH_S)


class QueueWatcher:
    """Polls the in-flight counts and the queues, for `policy.admission.window.InFlight`."""

    def __init__(self, settings: QueueSettings):
        self._settings = settings
        self._polled = 0.0
        self._counts = PublishedCounts()

    def poll(self) -> tuple[int | None, dict[str, QueueDepth] | None] | None:
        """`(generating, depths)`; None within `POLL_S` of the last poll, `(None, None)` without an
        answer.
        """
        if time.monotonic() - self._polled < POLL_S:
            return None
        self._polled = time.monotonic()
        try:
            depths = read_depths(self._settings.url)
            with connect_redis(self._settings.url, POLL_TIMEOUT_S) as client:
                published: Any = client.hgetall(KEY)
        except redis.RedisError as error:
            logger.debug("queues not polled: %s", error)
            return None, None
        return self._counts.total(published, time.monotonic()), depths


class PublishedCounts:
    """The counts of all processes, and when each last changed. Does not compare clocks of two machines."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[int, float]] = {}  # last sequence number, and when seen

    def total(self, published: Mapping[bytes, bytes], now: float) -> int | None:
        """The sum of the counts that changed in the last `FRESH_S`; None when none did. `now` in seconds."""
        fresh = []
        for field, value in published.items():
            count, number = json.loads(value)
            if self._seen.get(field, (-1, 0.0))[0] != number:
                self._seen[field] = number, now
            if now - self._seen[field][1] < FRESH_S:
                fresh.append(count)
        return sum(fresh) if fresh else None
