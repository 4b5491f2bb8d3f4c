"""Probes of the producer's process: event loop lag, bare Redis round trips, resident memory.

Invariant: they cost the loop little: one timer every 10 ms, one round trip every 50 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable

import psutil
import redis.asyncio

from workers.redis_client import connect_redis_async

TIMER_S = 0.010
RAW_PAUSE_S = 0.050
RAW_LIST = "llmi:bench:raw"


class Probes:
    """Each ends when `on` is false: redis-py may swallow a cancellation that coincides with its time-out."""

    def __init__(self) -> None:
        self.on = True
        self.lags: list[float] = []
        self.raw: list[float] = []

    async def measure_lag(self) -> None:
        """Record how much later than requested the loop returns from a sleep, in seconds."""
        while self.on:
            before = time.perf_counter()
            await asyncio.sleep(TIMER_S)
            self.lags.append(max(0.0, time.perf_counter() - before - TIMER_S))

    async def measure_round_trips(self, connection: redis.asyncio.Redis, message: Callable[[], str]) -> None:
        """Record round trips of the bytes of the last posted message, in seconds."""
        while self.on:
            await asyncio.sleep(RAW_PAUSE_S)
            self.raw.append(await round_trip(connection, message().encode()))


async def round_trip(connection: redis.asyncio.Redis, message: bytes) -> float:
    """Seconds for one LPUSH of `message` and its reply; the list is deleted after it."""
    before = time.perf_counter()
    await connection.execute_command("LPUSH", RAW_LIST, message)
    taken_s = time.perf_counter() - before
    await connection.execute_command("DEL", RAW_LIST)
    return taken_s


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client with a single connection."""
    connection = connect_redis_async(url, single=True)
    try:
        yield connection
    finally:
        await connection.aclose()


def resident() -> int:
    """Resident memory of this process in bytes, after a garbage collection."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)
