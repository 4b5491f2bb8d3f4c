"""The ways of running a rollout that ours is compared with, as agent loops on the same queues and workers.

`CoupledLoop`: tools are posted when the text is complete, judges when the last image is in, and the rollout
awaits its reward, as an agent loop of verl's does that calls its tools and its reward by itself.
`BlockingLoop`: as the released code of LLM-I, in phases of a whole batch: all texts, then all tools in so
many threads, then all judges in so many. Invariant: documents, requests and rewards are those of ours; only
the times of asking differ.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from policy.agent_loop import InterleavedAgentLoop
from policy.document import SOURCES, ImagePart, Part
from policy.rollout import Rollout, Written
from policy.tooling import Tooling
from workers.client import QueueClient
from workers.messages import Request
from workers.posted import Posted

WIDTHS_ENV = "LLMI_BENCH_WIDTHS"  # rollouts in a batch, tool threads, judge threads


class CoupledRollout(Rollout):
    """Tools after the text, judges after the tools."""

    def _read(self, parts: list[Part], written: Written, tooling: Tooling) -> None:
        written.parts += parts

    async def _score(self, written: Written, tooling: Tooling) -> None:
        await self._use_tools(written, tooling)
        await super()._score(written, tooling)

    async def _use_tools(self, written: Written, tooling: Tooling) -> None:
        for part in written.parts:
            if isinstance(part, ImagePart):
                tooling.start(part)
        await tooling.finish(written.parts)


class CoupledLoop(InterleavedAgentLoop):
    """verl's usual way."""

    def _compose(self, step: int, **parts: Any) -> Rollout:
        return CoupledRollout(**parts)


class Threads:
    """A queue client that has so many requests of a sort under way at once, as a pool of threads would."""

    def __init__(self, client: QueueClient, tools: asyncio.Semaphore, judges: asyncio.Semaphore):
        self._client = client
        self._tools = tools
        self._judges = judges
        self._holding: set[asyncio.Task[None]] = set()

    async def post(self, request: Request) -> Posted:
        """As `QueueClient.post`, when a thread is free; the deadline counts from then."""
        left_s = request.deadline - time.time()
        threads = self._tools if request.kind in SOURCES else self._judges
        await threads.acquire()
        try:
            posted = await self._client.post(request.model_copy(update={"deadline": time.time() + left_s}))
        except BaseException:  # whatever ended the posting, the thread is free again
            threads.release()
            raise
        holding = asyncio.create_task(self._hold(posted, threads))
        self._holding.add(holding)
        holding.add_done_callback(self._holding.discard)
        return posted

    async def cancel(self, request_id: str) -> None:
        await self._client.cancel(request_id)

    @staticmethod
    async def _hold(posted: Posted, threads: asyncio.Semaphore) -> None:
        try:
            await posted.outcome()
        finally:
            threads.release()


class Gate:
    """Opens for all, and for good, when so many have come."""

    def __init__(self, parties: int):
        self._missing = parties
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Returns when the last one has come; who comes later, of a group that replaces one, goes through."""
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()
        await self._open.wait()


class Phases:
    """What the rollouts of one process share: gates by step, threads for all steps.

    `widths`: rollouts in a batch, tool threads, judge threads.
    """

    def __init__(self, widths: tuple[int, int, int]):
        parties, tools, judges = widths
        self.texts: dict[int, Gate] = defaultdict(lambda: Gate(parties))
        self.images: dict[int, Gate] = defaultdict(lambda: Gate(parties))
        self.tools, self.judges = asyncio.Semaphore(tools), asyncio.Semaphore(judges)


@functools.cache
def _phases(_loop: asyncio.AbstractEventLoop) -> Phases:
    parties, tools, judges = map(int, os.environ[WIDTHS_ENV].split(","))
    return Phases((parties, tools, judges))


@dataclass(frozen=True)
class BlockingRollout(CoupledRollout):
    """Waits for its batch between the phases."""

    step: int = 0
    phases: Phases = field(default_factory=lambda: Phases((1, 1, 1)))

    async def _use_tools(self, written: Written, tooling: Tooling) -> None:
        await self.phases.texts[self.step].wait()
        await super()._use_tools(written, tooling)
        await self.phases.images[self.step].wait()


class BlockingLoop(InterleavedAgentLoop):
    """The original's way."""

    def _compose(self, step: int, **parts: Any) -> Rollout:
        phases = _phases(asyncio.get_running_loop())
        parts["client"] = Threads(parts["client"], phases.tools, phases.judges)
        return BlockingRollout(**parts, step=step, phases=phases)
