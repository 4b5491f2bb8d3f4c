"""How many rollouts hold a generation slot, told by the processes that write them, read by the sampler.

Rollout processes keep a field each in one Redis hash; the sampler reads it with the queues' depths.
Invariants: telling and reading never stop a run: without an answer nothing is known, and `Window` does not
grow; what a process told counts for `FRESH_S` after it was last told anew, by the reader's own clock; the
sampler asks at most every `LOOK_S` seconds.
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

from workers.broker.depths import read_depths
from workers.redis_client import POLL_TIMEOUT_S, connect_redis, connect_redis_async
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
KEY = "llmi:writing"
TELL_S = 0.5
LOOK_S = 1.0
FRESH_S = 5.0
KEPT_S = 600


class InFlightCounter:
    """Counts, in one rollout process, the rollouts that the generator writes for."""

    def __init__(self) -> None:
        self.writing = 0

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """The generator has been asked, and has not answered, within."""
        self.writing += 1
        try:
            yield
        finally:
            self.writing -= 1

    async def tell(self, settings: QueueSettings) -> None:
        """Tell until cancelled. A Redis that is away is told when it is back."""
        field, number = f"{socket.gethostname()}:{os.getpid()}", itertools.count()
        client = connect_redis_async(settings.url, POLL_TIMEOUT_S)
        async with client:
            while True:
                pipeline = client.pipeline(transaction=False)
                pipeline.hset(KEY, field, json.dumps([self.writing, next(number)]))
                pipeline.expire(KEY, KEPT_S)
                try:
                    await pipeline.execute()
                except (redis.RedisError, OSError) as error:
                    logger.debug("writers not told: %s", error)
                await asyncio.sleep(TELL_S)


class QueueWatcher:
    """What the sampler sees: `(writing, pressed)` as `policy.admission.window.InFlight` has them."""

    def __init__(self, settings: QueueSettings):
        self._settings = settings
        self._looked = 0.0
        self._told = PublishedCounts()

    def look(self) -> tuple[int | None, frozenset[str] | None] | None:
        """None when the last look is less than `LOOK_S` ago; `(None, None)` while Redis does not answer."""
        if time.monotonic() - self._looked < LOOK_S:
            return None
        self._looked = time.monotonic()
        try:
            depths = read_depths(self._settings.url)
            with connect_redis(self._settings.url, POLL_TIMEOUT_S) as client:
                told: Any = client.hgetall(KEY)
        except redis.RedisError as error:
            logger.debug("no look at the queues: %s", error)
            return None, None
        pressed = frozenset(name for name, depth in depths.items() if depth.waiting > depth.running)
        return self._told.writing(told, time.monotonic()), pressed


class PublishedCounts:
    """What processes told, and when it changed last; needs no clock of theirs."""

    def __init__(self) -> None:
        self._news: dict[bytes, tuple[int, float]] = {}  # number of the last telling, and when it was seen

    def writing(self, told: Mapping[bytes, bytes], now: float) -> int | None:
        """The sum of what was told anew in the last `FRESH_S`, None when nothing was. `now` in seconds."""
        fresh = []
        for field, words in told.items():
            count, number = json.loads(words)
            if self._news.get(field, (-1, 0.0))[0] != number:
                self._news[field] = number, now
            if now - self._news[field][1] < FRESH_S:
                fresh.append(count)
        return sum(fresh) if fresh else None
