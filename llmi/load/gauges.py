"""What the benchmark of the producer reads: how late its event loop is, what a bare Redis round trip takes on
it, and how much memory there is.

Invariant: reading costs the loop little: a beat every 10 ms, a round trip every 50 ms, and memory only when
asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import psutil
import redis.asyncio

from workers.redis_client import connect_redis_async

BEAT_S = 0.010
RAW_PAUSE_S = 0.050
RAW_LIST = "llmi:bench:raw"


@dataclass(frozen=True)
class Spread:
    """Quantiles of durations, in ms. All 0 where `n` is."""

    n: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """By the nearest rank: each quantile is a duration that was measured."""
        ordered = sorted(seconds)
        if not ordered:
            return cls()

        def rank(share: float) -> float:
            return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]

        return cls(len(ordered), rank(0.5), rank(0.9), rank(0.99), 1000 * ordered[-1])


class Gauges:
    """Both end when `on` is no more: redis-py may swallow a cancellation that meets its own time-out."""

    def __init__(self) -> None:
        self.on = True
        self.lags: list[float] = []
        self.raw: list[float] = []

    async def beat(self) -> None:
        """How much later than asked the loop comes back from a sleep."""
        while self.on:
            before = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            self.lags.append(max(0.0, time.perf_counter() - before - BEAT_S))

    async def round_trips(self, connection: redis.asyncio.Redis, message: Callable[[], str]) -> None:
        """Round trips of the bytes that are being posted just now."""
        while self.on:
            await asyncio.sleep(RAW_PAUSE_S)
            self.raw.append(await round_trip(connection, message().encode()))


async def round_trip(connection: redis.asyncio.Redis, message: bytes) -> float:
    """Seconds for one LPUSH of `message` and its answer; what it pushed is taken off again."""
    before = time.perf_counter()
    await connection.execute_command("LPUSH", RAW_LIST, message)
    taken_s = time.perf_counter() - before
    await connection.execute_command("DEL", RAW_LIST)
    return taken_s


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A connection of its own."""
    connection = connect_redis_async(url, single=True)
    try:
        yield connection
    finally:
        await connection.aclose()


def resident() -> int:
    """Bytes of memory this process holds, after all garbage is gone."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)
