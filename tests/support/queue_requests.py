"""Shared by the queue tests: request a job, wait for its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from queue_jobs import Order
from waiting import WAIT_S, until

from workers.broker.claims import claim
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import NORMAL, Failure, Outcome, Priority, Request

LEASE_S = 60.0


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


def named(name: str, priority: Priority = NORMAL, kind: str = "code", timeout_s: float = 600.0) -> Request:
    """A request with the id `name`."""
    request = request_for(Order(), kind, timeout_s)
    return request.model_copy(update={"request_id": name, "priority": priority})


def claimed(raw: redis.Redis, count: int = 10, queues: tuple[str, ...] = ("code",)) -> list[str]:
    """Claim for the worker `w`. Returns the ids in the order of the claims."""
    return [one.request_id for one in claim(raw, queues, count, "w", LEASE_S)]
