"""`llmi bench client`: the cost of many rollouts in one process, on one event loop.

What is real: the event loop of a Ray actor, `policy.rollout.rollout`, tag reader, tooling, queue client,
ledger, producer's metrics, scorer, and a Redis in its own process. What is simulated: the model, and all
workers by one other process. So it measures the producer, never a worker.

*Posting* is the time from the return of the generator that wrote `</imgen>` to Redis's reply to the request:
reading the text and the tag, encoding, sending. Edits that wait for another image are left out. Memory of a
rollout: resident memory with all of them, less that with a tenth of them, per rollout, less `TOKEN_BYTES` for
each token in memory. It is measured again by `tracemalloc` in a pass of its own, which slows everything down.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import redis.asyncio

from coordinator.console.terminal import Notify
from coordinator.host.environment import environment
from coordinator.host.redis_server import EmbeddedRedis
from llmi.load.client.load import ConstantLoad, Probes, connect, resident, round_trip
from llmi.load.client.numbers import Numbers
from llmi.load.simulated import workers as simulated_workers
from llmi.load.spread import Spread
from policy.rollout.freeze_gc import freeze_gc
from workers.settings import REDIS_ENV, QueueSettings

SERVICE_S = (0.2, 3.0)  # of tools and judges
FEW = 0.1  # of the rollouts, for comparison
RAMP_S = 4.0  # over which the rollouts start
SETTLE_S = 8.0  # until rollouts are in every state from first token to last verdict
IDLE_TRIPS = 300
TRACED = 200  # rollouts in the pass with tracemalloc
TOKEN_BYTES = 8 + 8  # a pointer to an id (the integers are shared here) and its log-probability, a double


async def measure(rollouts: int, seconds: float, folder: Path, notify: Notify, seed: int = 0) -> Numbers:
    """Start Redis and simulated workers in `folder`, and measure.

    Takes `seconds` and some 45 s; a minute more where rollouts hang.
    """
    began = time.monotonic()
    numbers = Numbers(rollouts, seconds)
    notify("starting Redis, workers and the first rollouts")
    with _own_redis(folder) as url:
        async with ConstantLoad(QueueSettings(redis_url=url), folder, seed) as load, connect(url) as bare:
            few_rollouts = max(1, int(FEW * rollouts))
            await load.start(few_rollouts, 1.0)
            await load.wait_done(few_rollouts)  # everything made on first use exists now
            freeze_gc()
            notify("a bare round trip, nearly idle")
            message = load.message().encode()
            numbers.message_bytes = len(message)
            numbers.raw_idle = Spread.of([await round_trip(bare, message) for _ in range(IDLE_TRIPS)])
            few, tokens_of_few, before = load.running, load.tokens, resident()
            notify(f"starting {rollouts} rollouts")
            await load.start(rollouts - few_rollouts, RAMP_S)
            await asyncio.sleep(SETTLE_S)
            notify(f"measuring for {seconds:g} s")
            await _window(load, bare, numbers)
            many, tokens, after = load.running, load.tokens, resident()
            beyond = after - before - TOKEN_BYTES * (tokens - tokens_of_few)
            numbers.rollout_kb = beyond / max(1, many - few) / 1000
            numbers.tokens_per_rollout = tokens / max(1, many)
            notify("waiting for the rollouts to end")
            await load.drain()
            notify("measuring memory by tracemalloc")
            await _account(load, min(TRACED, rollouts), numbers)
            numbers.left_open = load.client.in_flight
            numbers.failed = load.failed
    numbers.wall_s = time.monotonic() - began
    return numbers


async def _window(load: ConstantLoad, bare: redis.asyncio.Redis, numbers: Numbers) -> None:
    """Measure for `numbers.seconds`."""
    probes = Probes()
    done, processor, began = load.done, time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(probes.measure_lag())
        group.create_task(probes.measure_round_trips(bare, load.message))
        try:
            load.measuring = True
            await asyncio.sleep(numbers.seconds)
        finally:
            load.measuring = probes.on = False  # ends both probes
            passed = time.monotonic() - began
            numbers.processor_share = (time.process_time() - processor) / passed
    numbers.requests_per_s = load.posted / passed
    numbers.rollouts_per_s = (load.done - done) / passed
    numbers.posting = Spread.of(load.postings)
    numbers.loop_lag = Spread.of(probes.lags)
    numbers.raw_loaded = Spread.of(probes.raw)


async def _account(load: ConstantLoad, rollouts: int, numbers: Numbers) -> None:
    """What `rollouts` rollouts hold by `tracemalloc`, and what is left when they have ended."""
    tracemalloc.start()
    try:
        resident()
        empty = tracemalloc.get_traced_memory()[0]
        await load.start(rollouts, 1.0)
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
    """A Redis and simulated workers, in processes of their own; LLMI_REDIS_URL is not used meanwhile."""
    with environment({REDIS_ENV: None}), EmbeddedRedis(folder / "redis") as server:
        workers = simulated_workers.start(server.url, 1, SERVICE_S, folder / "workers.log")
        try:
            yield server.url
        finally:
            workers.kill()
            workers.wait()


def bench_folder() -> tempfile.TemporaryDirectory[str]:
    """The temporary folder of Redis, ledger and logs of one benchmark."""
    return tempfile.TemporaryDirectory(prefix="llmi-bench-")
