"""What the queue's tests have in common: asking for a job, and waiting for what it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from queue_jobs import Order

from workers.client import QueueClient
from workers.messages import Outcome, Request

WAIT_S = 30.0


def request_for(order: Order, kind: str = "code", timeout_s: float = WAIT_S, seed: int = 0) -> Request:
    return Request.make(kind, order, timeout_s=timeout_s, seed=seed)


async def ask(
    client: QueueClient, order: Order, kind: str = "code", timeout_s: float = WAIT_S, seed: int = 0
) -> Outcome:
    """Post and wait for the outcome."""
    posted = await client.post(request_for(order, kind, timeout_s, seed))
    return await posted.outcome()


def starts(notes: Path) -> list[int]:
    """The process ids in which a job was started, in order."""
    if not notes.exists():
        return []
    return [int(line.split()[1]) for line in notes.read_text().splitlines() if line.startswith("start")]


async def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> float:
    """Seconds until `condition` held. Fails when it never does."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "the condition never held"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
