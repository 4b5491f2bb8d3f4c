"""Shared by the queue tests: request a job, wait for its start, measure the loop's delay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from queue_jobs import Order
from waiting import WAIT_S, until

from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request

BEAT_S = 0.005


def request_for(order: Order, kind: str = "code", timeout_s: float = WAIT_S, seed: int = 0) -> Request:
    return Request.make(kind, order, timeout_s=timeout_s, seed=seed)


async def ask(
    client: QueueClient, order: Order, kind: str = "code", timeout_s: float = WAIT_S, seed: int = 0
) -> Outcome:
    """Post and wait for the outcome."""
    posted = await client.post(request_for(order, kind, timeout_s, seed))
    return await posted.outcome()


def cause_of(outcome: Outcome) -> Cause | None:
    """The cause of a failure; None for a success."""
    return outcome.result.cause if isinstance(outcome.result, Failure) else None


@dataclass(frozen=True)
class Notes:
    """A file in which jobs note their start; `order` makes such a job."""

    path: Path

    def order(self, **fields: Any) -> Order:
        return Order(notes=str(self.path), **fields)

    @property
    def starts(self) -> list[int]:
        """The process id of each start, in order."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith("start")]

    async def started(self, times: int = 1, timeout_s: float = WAIT_S) -> int:
        """Wait for `times` starts. Returns the process id of the last."""
        await until(lambda: len(self.starts) == times, timeout_s)
        return self.starts[-1]


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@dataclass
class Heartbeat:
    """`largest_s`: the largest delay of the loop."""

    largest_s: float = 0.0
    _last: float = 0.0

    def beat(self) -> None:
        now = time.perf_counter()
        self.largest_s = max(self.largest_s, now - self._last - BEAT_S)
        self._last = now


@contextlib.asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    """Measure the delay of the loop with a task that should run every 5 ms."""
    heart = Heartbeat(_last=time.perf_counter())

    async def run() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            heart.beat()

    task = asyncio.create_task(run())
    try:
        yield heart
        heart.beat()  # a delay up to the end of the block counts too
    finally:
        task.cancel()
