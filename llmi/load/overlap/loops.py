"""The agent loops that llmi is compared with, on the same queues and workers.

`CoupledLoop`: tools are posted when the text is complete, judges when the last image has arrived, and the
rollout awaits its reward, as a verl agent loop does that calls tools and reward itself.
`BlockingLoop`: as the released code of LLM-I, in phases of a whole batch: all texts, then all tools in a pool
of threads, then all judges in another. Invariant: documents, requests and rewards are the same as in llmi;
only the times of posting differ.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from llmi.tools import SOURCES
from policy.document import Part
from policy.rollout.agent_loop import InterleavedAgentLoop
from policy.rollout.result import RolloutResult
from policy.rollout.rollout import Rollout
from policy.rollout.tooling import Tooling
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import Priority, Request

WIDTHS_ENV = "LLMI_BENCH_WIDTHS"  # rollouts in a batch, tool threads, judge threads


class CoupledRollout(Rollout):
    """Tools after the text, judges after the tools."""

    def _parse(self, parts: list[Part], written: RolloutResult, tooling: Tooling) -> None:
        written.parts += parts

    async def _score(self, written: RolloutResult, tooling: Tooling) -> None:
        await self._use_tools(written, tooling)
        await super()._score(written, tooling)

    async def _use_tools(self, written: RolloutResult, tooling: Tooling) -> None:
        written.parts = tooling.take(written.parts)
        await tooling.finish(written.parts)


class CoupledLoop(InterleavedAgentLoop):
    """As verl runs a rollout with tools and reward."""

    def _compose(self, step: int, **parts: Any) -> Rollout:
        return CoupledRollout(**parts)


class Threads:
    """A queue client with a bounded number of requests in flight, as two pools of threads would have."""

    def __init__(self, client: QueueClient, tools: asyncio.Semaphore, judges: asyncio.Semaphore):
        self._client = client
        self._tools = tools
        self._judges = judges
        self._holding: set[asyncio.Task[None]] = set()

    @property
    def wait_s(self) -> float:
        return self._client.wait_s

    @property
    def priority(self) -> Priority:
        return self._client.priority

    async def post(self, request: Request) -> RequestHandle:
        """As `QueueClient.post`, when a thread is free; the deadline counts from then."""
        left_s = request.deadline - time.time()
        threads = self._tools if request.kind in SOURCES else self._judges
        await threads.acquire()
        try:
            posted = await self._client.post(request.model_copy(update={"deadline": time.time() + left_s}))
        except BaseException:  # also a cancellation frees the thread
            threads.release()
            raise
        holding = asyncio.create_task(self._hold(posted, threads))
        self._holding.add(holding)
        holding.add_done_callback(self._holding.discard)
        return posted

    async def cancel(self, request_id: str) -> None:
        await self._client.cancel(request_id)

    @staticmethod
    async def _hold(posted: RequestHandle, threads: asyncio.Semaphore) -> None:
        try:
            await posted.outcome()
        finally:
            threads.release()


class Barrier:
    """Opens, and stays open, when `parties` rollouts have arrived or ended."""

    def __init__(self, parties: int):
        self._parties = parties
        self._arrived: set[str] = set()
        self._open = asyncio.Event()

    def arrive(self, rollout_id: str) -> None:
        """Count a rollout, once."""
        self._arrived.add(rollout_id)
        if len(self._arrived) >= self._parties:
            self._open.set()

    async def wait(self, rollout_id: str) -> None:
        """Wait for the last rollout. One that arrives later, of a replacement group, does not wait."""
        self.arrive(rollout_id)
        await self._open.wait()


class Phases:
    """What the rollouts of one process share: barriers by step, threads for all steps.

    `widths`: rollouts in a batch, tool threads, judge threads.
    """

    def __init__(self, widths: tuple[int, int, int]):
        parties, tools, judges = widths
        self.texts: dict[int, Barrier] = defaultdict(lambda: Barrier(parties))
        self.images: dict[int, Barrier] = defaultdict(lambda: Barrier(parties))
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

    async def run(self, prompt_ids: list[int]) -> RolloutResult:
        """As `Rollout.run`; a failed rollout counts as arrived."""
        try:
            return await super().run(prompt_ids)
        finally:
            for barrier in self._barriers:
                barrier.arrive(self.rollout_id)

    async def _use_tools(self, written: RolloutResult, tooling: Tooling) -> None:
        texts, images = self._barriers
        await texts.wait(self.rollout_id)
        await super()._use_tools(written, tooling)
        await images.wait(self.rollout_id)

    @property
    def _barriers(self) -> tuple[Barrier, Barrier]:
        return self.phases.texts[self.step], self.phases.images[self.step]


class BlockingLoop(InterleavedAgentLoop):
    """As the released code of LLM-I runs a batch."""

    def _compose(self, step: int, **parts: Any) -> Rollout:
        phases = _phases(asyncio.get_running_loop())
        parts["client"] = Threads(parts["client"], phases.tools, phases.judges)
        return BlockingRollout(**parts, step=step, phases=phases)
