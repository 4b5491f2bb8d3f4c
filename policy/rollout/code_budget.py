"""The seconds that the code of one document may run.

A job's whole limit is reserved while it runs; then the unused part is released.

Invariants:
- The jobs of a document together never run longer than its budget, however many tags are open at once.
- A job runs with its whole limit or not at all.
- Jobs run in the order of their tags.
- Time in a queue costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

Decision = Literal["run", "wait", "refuse"]


def decide(left_s: float, limit_s: float, *, running: bool) -> Decision:
    """The decision for the next job, when `left_s` seconds are neither used nor reserved."""
    if left_s >= limit_s:
        return "run"
    return "wait" if running else "refuse"


@dataclass
class Share:
    """A job's part of the budget. The caller sets `ran_s`, in seconds, when the job has ended."""

    granted: bool
    ran_s: float = 0.0


class CodeBudget:
    """The budget of one document. `limit_s`: time limit of one job."""

    def __init__(self, budget_s: float, limit_s: float):
        self._left_s = budget_s
        self._limit_s = limit_s
        self._running = 0
        self._order = asyncio.Lock()  # serves waiters in order
        self._released = asyncio.Event()

    @asynccontextmanager
    async def share(self) -> AsyncIterator[Share]:
        """A share for one job, reserved within the block. Waits while running jobs may release enough."""
        async with self._order:
            while (decision := self._decision()) == "wait":
                self._released.clear()
                await self._released.wait()
            share = Share(granted=decision == "run")
            self._reserve(share)
        try:
            yield share
        finally:
            self._release(share)

    def _decision(self) -> Decision:
        return decide(self._left_s, self._limit_s, running=self._running > 0)

    def _reserve(self, share: Share) -> None:
        if share.granted:
            self._left_s -= self._limit_s
            self._running += 1

    def _release(self, share: Share) -> None:
        if share.granted:
            # Time beyond the limit is overhead of the worker: it starts a jail and stores images.
            self._left_s += self._limit_s - min(share.ran_s, self._limit_s)
            self._running -= 1
            self._released.set()
