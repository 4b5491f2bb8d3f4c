"""A constant number of rollouts in flight, the times from a closed tag to its request in Redis, and probes of
the process: event loop lag, bare Redis round trips, resident memory.

Invariant: probes cost the loop little: one timer every 10 ms, one round trip every 50 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import redis.asyncio

from llmi.load.simulated.producer import SimulatedProducer
from workers.messages import Request
from workers.redis_client import connect_redis_async
from workers.settings import QueueSettings

DRAIN_S = 30.0
WARM_S = 60.0  # the first few rollouts take some 10 s
TIMEOUT_S = 300.0
TIMER_S = 0.010
RAW_PAUSE_S = 0.050
RAW_LIST = "llmi:bench:raw"


class ConstantLoad(SimulatedProducer):
    """Keeps rollouts in flight, each followed by another until `drain`."""

    def __init__(self, settings: QueueSettings, run: Path, seed: int):
        super().__init__(settings, run, seed, TIMEOUT_S, closed=self._closed)
        self.postings: list[float] = []
        self.posted = self.done = self.failed = 0
        self.measuring = False
        self.last: Request | None = None
        self._closings: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._ended_one = asyncio.Event()

    async def __aexit__(self, *error: object) -> None:
        await self.drain()
        await super().__aexit__(*error)

    @property
    def running(self) -> int:
        return len(self.model.written)

    @property
    def tokens(self) -> int:
        """Tokens in memory, prompts included."""
        return sum(self.model.written.values())

    async def start(self, count: int, over_s: float) -> None:
        """Start `count` more, evenly spread over `over_s` seconds."""
        began = time.monotonic()
        for index in range(count):
            task = asyncio.create_task(self._slot())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(max(0.0, began + over_s * (index + 1) / count - time.monotonic()))

    async def wait_done(self, count: int) -> None:
        """Wait until `count` rollouts have ended. Raises `TimeoutError`."""
        async with asyncio.timeout(WARM_S):
            while self.done < count:
                self._ended_one.clear()
                await self._ended_one.wait()

    async def drain(self) -> None:
        """Let every rollout end soon, and cancel those that do not."""
        self.model.finishing = True
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.model.finishing = False
        self._closings.clear()

    def message(self) -> str:
        """The last tag's request, as it was sent to Redis."""
        assert self.last is not None
        return self.last.model_dump_json()

    async def _slot(self) -> None:
        while not self.model.finishing:
            self._number += 1
            result = await self.write(f"bench{self._number:08d}_0", self.model.choose())
            self.done += 1
            self.failed += result.reward is None
            self._ended_one.set()

    def _closed(self, rollout_id: str, number: int) -> None:
        self._closings[f"{rollout_id}-{number}"] = time.perf_counter()

    def _posted(self, request: Request) -> None:
        now = time.perf_counter()
        closed = self._closings.pop(request.request_id, None)
        if closed is not None and request.kind != "edit":
            self.last = request
            if self.measuring:
                self.postings.append(now - closed)
        self.posted += self.measuring
        super()._posted(request)


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
