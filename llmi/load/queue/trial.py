"""One round of one contestant: its own Redis, its workers, and a process that posts requests and awaits them.

Invariants: nothing is measured before the workers have run some requests; no two contestants run at once;
everything has ended when the function returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.config.settings import ServiceConfig
from coordinator.host.redis_server import EmbeddedRedis
from llmi.load.queue.child import LineChild, line_child
from llmi.load.queue.contestants import Contestant, Options, slots_per_process
from llmi.load.queue.noop import QUEUE
from llmi.load.spread import Spread
from workers.process.parent_death import start_child
from workers.process.worker import WorkerProcess
from workers.settings import BlobSettings, QueueSettings

SCRIPTS = Path(__file__).parent / "scripts"
LOGS = "logs"  # in the folder of a benchmark
START_S = 120.0  # for the workers and their first requests
SLOWEST_S = 0.5  # of a request, on average
STOP_S = 15.0
WARM = 8  # requests for each slot, before measuring


@dataclass(frozen=True)
class Trial:
    """The numbers of one round: requests per second, and ms from post to outcome of single requests."""

    per_s: float
    p50: float
    p99: float

    @classmethod
    def of(cls, numbers: Mapping[str, Any]) -> Trial:
        """From the JSON of `scripts/harness.py`."""
        single = Spread.of(numbers["latencies_s"])
        return cls(numbers["per_s"], single.p50, single.p99)


@dataclass(frozen=True)
class Load:
    """What a producer measures: see `scripts/harness.py`."""

    warm: int
    requests: int
    in_flight: int
    singles: int
    seconds: float = 0.0

    @property
    def limit_s(self) -> float:
        """When measuring has failed."""
        return START_S + SLOWEST_S * (self.requests + self.singles) + self.seconds


def run(contestant: Contestant, python: Path, options: Options, folder: Path, redis: Path) -> Trial:
    """Measure one round. `python`: the contestant's interpreter. `folder`: has the folder `logs`. `redis`: an
    empty folder.

    Raises `InfrastructureFault` when a process ends early, or is not done in time.
    """
    load = Load(WARM * options.slots, options.requests, options.in_flight, options.singles)
    with EmbeddedRedis(redis) as server:
        if contestant.workers is None:
            workers = own_workers(server.url, options, folder, {QUEUE: options.slots})
        else:
            workers = _workers(contestant, python, server.url, options, folder)
        with workers, producer(contestant, python, server.url, folder, load) as client:
            return Trial.of(finish(client, load))


@contextlib.contextmanager
def producer(
    contestant: Contestant, python: Path, url: str, folder: Path, load: Load, kind: str = QUEUE
) -> Iterator[LineChild]:
    """The process of `scripts/harness.py`, warm. `kind`: the queue, of this program's."""
    command = [str(python), "-P", str(SCRIPTS / "harness.py"), contestant.script, json.dumps(asdict(load))]
    env = _environment(url, BENCH_KIND=kind)
    with line_child(command, folder / LOGS / f"{contestant.script}-client.log", env) as child:
        child.read(START_S)
        yield child


def finish(client: LineChild, load: Load) -> dict[str, Any]:
    """Let a warm producer measure, and return its numbers."""
    client.write("go")
    return json.loads(client.read(load.limit_s))


@contextlib.contextmanager
def own_workers(
    url: str, options: Options, folder: Path, slots: Mapping[str, int], **more: str
) -> Iterator[None]:
    """A worker of this program for each queue in `slots`, all ready. `more`: added to their environment."""
    config = ServiceConfig(
        name="bench",
        queue=QueueSettings(redis_url=url),
        blobs=BlobSettings(url=str(folder / "blobs")),
    )
    config.save(folder)
    log, names = folder / LOGS / "llmi_queue-worker.log", f"bench-{uuid.uuid4().hex[:8]}"
    workers = [
        WorkerProcess(
            (queue,), folder / "config.json", count, log, f"{names}-{queue}",
            app="llmi.load.queue.noop_app", extra_env=more, pool=options.pool,
        )
        for queue, count in slots.items()
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready(START_S)
        yield
        for worker in workers:
            worker.drain(STOP_S)
    finally:
        for worker in workers:
            worker.kill()


@contextlib.contextmanager
def _workers(
    contestant: Contestant, python: Path, url: str, options: Options, folder: Path
) -> Iterator[None]:
    """The workers of another task queue; they may not be ready yet."""
    assert contestant.workers is not None
    env = _environment(url, BENCH_SLOTS=slots_per_process(options.pool, options.slots))
    log = folder / LOGS / f"{contestant.script}-worker.log"
    commands = contestant.workers(options.pool, options.slots)
    started = [start_child([str(python), "-P", *command], log=log, env=env) for command in commands]
    try:
        yield
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session, so only what it started
            process.wait()


def _environment(url: str, **more: str) -> dict[str, str]:
    """Of the processes that run `scripts/`. `url`: of their Redis."""
    return {**os.environ, "PYTHONPATH": str(SCRIPTS), "BENCH_REDIS_URL": url, **more}
