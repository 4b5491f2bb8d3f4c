"""The producer under load: so many rollouts in one process and on one event loop, and what it costs.

What is real: the event loop of a Ray actor, `policy.rollout.rollout`, tag reader, tooling, queue client,
ledger, producer's metrics, scorer, and a Redis in its own process. What is played: the model
(`played_model`), and all workers by one other process (`played_workers`). So it measures the producer, never
a worker.

*Posting* is from the return of the generator that wrote `</imgen>` to the moment the client knows that Redis
has the request: reading the text, the tag, encoding, sending and the answer. Edits that wait for another
image are left out. Memory of a rollout: what the process holds with all of them, less what it held with a
tenth of them, per rollout, less `TOKEN_BYTES` for each token then in memory. Once more by Python's own
accounts, in a pass of its own, which slows everything down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio
from prometheus_client import CollectorRegistry

from coordinator.console.terminal import Notify
from coordinator.host.redis_server import EmbeddedRedis
from llmi.load.gauges import Gauges, Spread, connect, resident, round_trip
from llmi.load.simulated import workers as played_workers
from llmi.load.simulated.model import END, PROMPT_TOKENS, PlayedModel
from llmi.load.targets import Target
from llmi.tools import SOURCES
from policy.document import Task
from policy.ledger.writer import LedgerWriter
from policy.rollout.freeze_gc import freeze_gc
from policy.rollout.rollout import Limits, Rollout
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.client.publisher import encode
from workers.messages import Outcome, Request
from workers.metrics.telemetry import ProducerMetrics
from workers.settings import REDIS_ENV, QueueSettings

POSTING_MS, LAG_MS, ROLLOUT_KB = 5.0, 20.0, 50.0  # what is asked for

SERVICE_S = (0.2, 3.0)  # of tools and judges
FEW = 0.1  # of the rollouts, for comparison
RAMP_S = 4.0  # the rollouts begin spread over so long
SETTLE_S = 8.0  # until rollouts are in every state from first token to last verdict
DRAIN_S = 30.0
WARM_S = 60.0  # the first few rollouts take some 10 s
IDLE_TRIPS = 300
TRACED = 200  # rollouts in the pass that accounts for memory
TOKEN_BYTES = 8 + 8  # a pointer to an id (the integers are shared here) and its log-probability, a double
LIMITS = Limits(response_tokens=24_000, timeout_s=300.0)


@dataclass
class Numbers:
    """What was measured. Times in ms unless their name says seconds; memory in KB (1,000 bytes)."""

    rollouts: int
    seconds: float
    posting: Spread = field(default_factory=Spread)
    loop_lag: Spread = field(default_factory=Spread)
    raw_idle: Spread = field(default_factory=Spread)
    raw_loaded: Spread = field(default_factory=Spread)
    requests_per_s: float = 0.0
    rollouts_per_s: float = 0.0
    tokens_per_rollout: float = 0.0
    message_bytes: int = 0
    processor_share: float = 0.0
    rollout_kb: float = 0.0
    rollout_traced_kb: float = 0.0
    left_traced_kb: float = 0.0
    left_open: int = 0
    failed: int = 0
    wall_s: float = 0.0

    @property
    def ratio_idle(self) -> float:
        """Posting against a round trip of the same bytes on an idle loop, median to median."""
        return self.posting.p50 / self.raw_idle.p50 if self.raw_idle.p50 else 0.0

    @property
    def ratio_loaded(self) -> float:
        """The same against round trips on the loaded loop."""
        return self.posting.p50 / self.raw_loaded.p50 if self.raw_loaded.p50 else 0.0

    @property
    def targets(self) -> tuple[Target, ...]:
        return (
            Target("tag closed to request in Redis, p50", self.posting.p50, "ms", at_most=POSTING_MS),
            Target("event loop lag, p99", self.loop_lag.p99, "ms", at_most=LAG_MS),
            Target("memory per rollout beyond its tokens", self.rollout_kb, "KB", at_most=ROLLOUT_KB),
        )

    def document(self) -> dict[str, Any]:
        """For JSON."""
        ratios = {"ratio_idle": self.ratio_idle, "ratio_loaded": self.ratio_loaded}
        targets = [target.document() for target in self.targets]
        return {**asdict(self), **ratios, "targets": targets}


class _Load:
    """Keeps rollouts in flight, each followed by another until `finishing`."""

    def __init__(self, settings: QueueSettings, run: Path, seed: int):
        self.ledger = LedgerWriter(run, "rollout")
        self.metrics = ProducerMetrics(CollectorRegistry())
        self.client = QueueClient(settings, on_posted=self._posted, on_outcome=self._ended)
        self.scorer = QueueScorer(RewardSettings(), JudgeSettings())
        self.model = PlayedModel(seed, self._closed)
        self.postings: list[float] = []
        self.posted = self.done = self.failed = 0
        self.measuring = False
        self.last: Request | None = None
        self._closings: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._news = asyncio.Event()

    @property
    def running(self) -> int:
        return len(self.model.written)

    @property
    def tokens(self) -> int:
        """Tokens in memory, prompts included."""
        return sum(self.model.written.values())

    async def begin(self, count: int, over_s: float) -> None:
        """Start so many more, evenly spread over `over_s` seconds."""
        began = time.monotonic()
        for index in range(count):
            task = asyncio.create_task(self._slot())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(max(0.0, began + over_s * (index + 1) / count - time.monotonic()))

    async def have_done(self, count: int) -> None:
        """Wait until so many have ended. Raises TimeoutError."""
        async with asyncio.timeout(WARM_S):
            while self.done < count:
                self._news.clear()
                await self._news.wait()

    async def drain(self) -> None:
        """Let every rollout end soon; those that do not are cancelled."""
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
        """The last tag's request, as it went to Redis."""
        assert self.last is not None
        return encode(self.last, tag="0" * 32, reply_to="llmi:replies:" + "0" * 32)

    async def _slot(self) -> None:
        while not self.model.finishing:
            self._number += 1
            await self._rollout(f"bench{self._number:08d}_0")

    async def _rollout(self, rollout_id: str) -> None:
        text = self.model.choose()
        task = Task(question="A question of one line. Use images.", image_num=2, tools=SOURCES)
        rollout = Rollout(
            rollout_id=rollout_id,
            task=task,
            generate=partial(self.model.generate, rollout_id=rollout_id, text=text),
            decode=self.model.vocabulary.decode,
            ends=frozenset({END}),
            client=self.client,
            scorer=self.scorer,
            ledger=self.ledger,
            limits=LIMITS,
        )
        self.ledger.started(rollout_id, task)
        try:
            with self.metrics.rollout():
                written = await rollout.run(list(range(1, PROMPT_TOKENS + 1)))
        finally:
            self.model.forget(rollout_id)
        self.done += 1
        self._news.set()
        self.failed += written.reward is None

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
        self.ledger.posted(request)
        self.metrics.posted(request)

    def _ended(self, outcome: Outcome) -> None:
        self.ledger.ended(outcome)
        self.metrics.ended(outcome)


async def measure(rollouts: int, seconds: float, folder: Path, say: Notify, seed: int = 0) -> Numbers:
    """Start Redis and the played workers in `folder`, and measure. Takes `seconds` and
    some 45 s; a minute more where rollouts hang."""
    began = time.monotonic()
    numbers = Numbers(rollouts, seconds)
    with _own_redis(folder) as url:
        async with _loaded(QueueSettings(redis_url=url), folder, seed) as load, connect(url) as bare:
            begun = max(1, int(FEW * rollouts))
            await load.begin(begun, 1.0)
            await load.have_done(begun)  # what is made on first use is there
            freeze_gc()
            say("a bare round trip, nearly idle")
            message = load.message().encode()
            numbers.message_bytes = len(message)
            numbers.raw_idle = Spread.of([await round_trip(bare, message) for _ in range(IDLE_TRIPS)])
            few, tokens_of_few, before = load.running, load.tokens, resident()
            say(f"{rollouts} rollouts begin")
            await load.begin(rollouts - begun, RAMP_S)
            await asyncio.sleep(SETTLE_S)
            say(f"measuring for {seconds:g} s")
            await _window(load, bare, numbers)
            many, tokens, after = load.running, load.tokens, resident()
            beyond = after - before - TOKEN_BYTES * (tokens - tokens_of_few)
            numbers.rollout_kb = beyond / max(1, many - few) / 1000
            numbers.tokens_per_rollout = tokens / max(1, many)
            say("the rollouts end")
            await load.drain()
            say("accounting for memory")
            await _account(load, min(TRACED, rollouts), numbers)
            numbers.left_open = load.client.in_flight
            numbers.failed = load.failed
    numbers.wall_s = time.monotonic() - began
    return numbers


async def _window(load: _Load, bare: redis.asyncio.Redis, numbers: Numbers) -> None:
    """Let `numbers.seconds` pass, and take down what happened in them."""
    gauges = Gauges()
    done, processor, began = load.done, time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(gauges.beat())
        group.create_task(gauges.round_trips(bare, load.message))
        try:
            load.measuring = True
            await asyncio.sleep(numbers.seconds)
        finally:
            load.measuring = gauges.on = False  # which ends the two
            passed = time.monotonic() - began
            numbers.processor_share = (time.process_time() - processor) / passed
    numbers.requests_per_s = load.posted / passed
    numbers.rollouts_per_s = (load.done - done) / passed
    numbers.posting = Spread.of(load.postings)
    numbers.loop_lag = Spread.of(gauges.lags)
    numbers.raw_loaded = Spread.of(gauges.raw)


async def _account(load: _Load, rollouts: int, numbers: Numbers) -> None:
    """What `rollouts` rollouts hold by Python's own accounts, and what is left when they have ended."""
    tracemalloc.start()
    try:
        resident()
        empty = tracemalloc.get_traced_memory()[0]
        await load.begin(rollouts, 1.0)
        await asyncio.sleep(SETTLE_S)
        running, tokens = load.running, load.tokens
        resident()
        full = tracemalloc.get_traced_memory()[0]
        await load.drain()
        resident()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    numbers.rollout_traced_kb = (full - empty - TOKEN_BYTES * tokens) / max(1, running) / 1000
    numbers.left_traced_kb = (left - empty) / 1000


@contextlib.contextmanager
def _own_redis(folder: Path) -> Iterator[str]:
    """A Redis and the played workers, in processes of their own; LLMI_REDIS_URL has no say meanwhile."""
    named = os.environ.pop(REDIS_ENV, None)
    try:
        with EmbeddedRedis(folder / "redis") as server:
            workers = played_workers.start(server.url, 1, SERVICE_S, folder / "workers.log")
            try:
                yield server.url
            finally:
                workers.kill()
                workers.wait()
    finally:
        if named is not None:
            os.environ[REDIS_ENV] = named


@contextlib.asynccontextmanager
async def _loaded(settings: QueueSettings, folder: Path, seed: int) -> AsyncIterator[_Load]:
    load = _Load(settings, folder, seed)
    try:
        async with load.client:
            try:
                yield load
            finally:
                await load.drain()
    finally:
        load.ledger.close()


def bench_folder() -> tempfile.TemporaryDirectory[str]:
    """Where Redis, ledger and logs of one benchmark lie until it has ended."""
    return tempfile.TemporaryDirectory(prefix="llmi-bench-")
