"""The seconds that the code of one document may run.

A job's whole limit is reserved while it runs, then what it did not use is returned. Invariants: what all jobs
of a document run together is never more than its budget, however many tags are open at once; a job runs with
its whole limit or not at all; jobs come in the order of their tags; time in a queue costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

Decision = Literal["run", "wait", "refuse"]


def decide(left_s: float, limit_s: float, *, running: bool) -> Decision:
    """What becomes of the next job, when `left_s` are neither used nor reserved."""
    if left_s >= limit_s:
        return "run"
    return "wait" if running else "refuse"


@dataclass
class Share:
    """A job's part of the budget: `granted` or refused. Its poster sets `ran_s` when the job has ended."""

    granted: bool
    ran_s: float = 0.0


class CodeBudget:
    """Of one document. `limit_s`: the most that one job counts for."""

    def __init__(self, budget_s: float, limit_s: float):
        self._left_s = budget_s
        self._limit_s = limit_s
        self._running = 0
        self._turn = asyncio.Lock()  # serves waiters in order
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def share(self) -> AsyncIterator[Share]:
        """A share for one job, reserved within. Waits while running jobs may return enough for it."""
        async with self._turn:
            while (decision := self._decision()) == "wait":
                self._returned.clear()
                await self._returned.wait()
            share = Share(granted=decision == "run")
            self._reserve(share)
        try:
            yield share
        finally:
            self._return(share)

    def _decision(self) -> Decision:
        return decide(self._left_s, self._limit_s, running=self._running > 0)

    def _reserve(self, share: Share) -> None:
        if share.granted:
            self._left_s -= self._limit_s
            self._running += 1

    def _return(self, share: Share) -> None:
        if share.granted:
            # Time beyond the job's limit is the worker's own: it starts a jail and stores pictures.
            self._left_s += self._limit_s - min(share.ran_s, self._limit_s)
            self._running -= 1
            self._returned.set()
