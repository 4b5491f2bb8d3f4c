"""The queues of this program with a long backlog: throughput, latency beside it, time of each Redis command.

First a worker consumes from the backlog, and as many requests are posted to it as are done, so that its
length stays. Then a worker serves a second queue beside it. Its requests are posted one at a time, and these
are timed: the time of a request behind a million others would be the time that those take. While the backlog
is consumed all cores are busy, and a latency would show how they are shared.

Invariants: every backlog has a Redis of its own, filled once; only one is measured at a time; no Redis
rewrites its append-only file meanwhile.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import redis

from coordinator.host.redis_server import EmbeddedRedis
from llmi.load.queue.contestants import OURS, Options
from llmi.load.queue.filler import Filler, filler
from llmi.load.queue.noop import BESIDE, COUNTER_ENV, QUEUE
from llmi.load.queue.numbers import CommandTime, Window
from llmi.load.queue.trial import LOGS, START_S, WARM, Load, Trial, finish, own_workers, producer
from workers.errors import Cause, InfrastructureFault
from workers.redis_client import connect_redis

FILLERS = 2
CHUNK = 2000  # requests that a filler posts at once
TOP_UP = 10  # the same while a worker consumes; constant, since it sets the time of the script
TOP_UP_S = 0.005
OWN = ("config|resetstat", "info")  # commands of this module


class Backlog:
    """`waiting` requests in a Redis of their own. Made by `backlog`.

    `counter`: a file that grows by a byte with each request that is done. `folder`: of the benchmark.
    """

    def __init__(self, waiting: int, server: EmbeddedRedis, client: redis.Redis, counter: Path, folder: Path):
        self.waiting = waiting
        self.bytes = 0  # memory that they take in Redis
        self._url = server.url
        self.client = client
        self._counter = counter
        self._folder = folder
        self.posted = 0  # so many requests so far

    def fill(self, progress: Callable[[int], None]) -> None:
        """Post all, with `FILLERS` processes. `progress` gets the number so far."""
        before = self._memory()
        chunks = [(first, min(CHUNK, self.waiting - first)) for first in range(0, self.waiting, CHUNK)]
        idle: queue.SimpleQueue[Filler] = queue.SimpleQueue()

        def post(chunk: tuple[int, int]) -> int:
            one = idle.get()
            one.post(*chunk)
            idle.put(one)
            return chunk[1]

        with contextlib.ExitStack() as stack:
            for _ in range(FILLERS):
                idle.put(stack.enter_context(self._filler()))
            pool = stack.enter_context(ThreadPoolExecutor(FILLERS))
            stack.callback(pool.shutdown, cancel_futures=True)
            for done in as_completed([pool.submit(post, chunk) for chunk in chunks]):
                self.posted += done.result()
                progress(self.posted)
        self.bytes = self._memory() - before

    def measure(self, options: Options) -> Window:
        """Measure throughput for `options.seconds`, then latency for as long, each with a new worker."""
        per_s, draining = self._throughput(options)
        single, beside = self._latency(options)
        return Window(per_s, single.p50, single.p99, {**beside, **draining})

    def _throughput(self, options: Options) -> tuple[float, dict[str, CommandTime]]:
        """Requests per second that a worker runs from the backlog, which keeps its length."""
        first, warm = self.done, WARM * options.slots
        more = {COUNTER_ENV: str(self._counter)}
        with (
            own_workers(self._url, options, self._folder, {QUEUE: options.slots}, **more),
            self._filler() as one,
        ):
            started = time.monotonic()
            self._top_up(one, lambda: time.monotonic() - started > START_S or self.done - first >= warm)
            if self.done - first < warm:
                raise InfrastructureFault(
                    Cause.INTERNAL, f"the backlog is not consumed; see {self._folder / LOGS}"
                )
            self.client.config_resetstat()
            began, done = time.perf_counter(), self.done
            self._top_up(one, lambda: time.perf_counter() - began >= options.seconds)
            taken_s, done = time.perf_counter() - began, self.done - done
            return done / taken_s, self._commands()

    def _latency(self, options: Options) -> tuple[Trial, dict[str, CommandTime]]:
        """From post to outcome of single requests of the other queue."""
        load = Load(WARM * options.slots, 0, 1, options.singles, options.seconds)
        python = Path(sys.executable)
        with (
            own_workers(self._url, options, self._folder, {BESIDE: options.slots}),
            producer(OURS, python, self._url, self._folder, load, BESIDE) as client,
        ):
            self.client.config_resetstat()
            return Trial.of(finish(client, load)), self._commands()

    def _top_up(self, one: Filler, ended: Callable[[], bool]) -> None:
        """Post as many requests as are done, until `ended`."""
        while not ended():
            if self.waiting + self.done - self.posted < TOP_UP:
                time.sleep(TOP_UP_S)
                continue
            one.post(self.posted, TOP_UP)
            self.posted += TOP_UP

    def _filler(self) -> contextlib.AbstractContextManager[Filler]:
        return filler(self._url, self._folder / LOGS / "filler.log")

    @property
    def done(self) -> int:
        """Requests of the backlog that a worker has run, since the beginning."""
        return self._counter.stat().st_size

    def _memory(self) -> int:
        info: Any = self.client.info("memory")
        return int(info["used_memory"])

    def _commands(self) -> dict[str, CommandTime]:
        """Every command since the last reset."""
        stats: Any = self.client.info("commandstats")
        found = {name.removeprefix("cmdstat_"): one for name, one in stats.items()}
        return {
            name: CommandTime(int(one["calls"]), float(one["usec_per_call"]))
            for name, one in found.items()
            if name not in OWN
        }


@contextlib.contextmanager
def backlog(waiting: int, folder: Path, data: Path) -> Iterator[Backlog]:
    """A backlog that is still empty. `folder`: of the benchmark. `data`: an empty folder for its Redis."""
    data.mkdir(parents=True)
    counter = data / "done"
    counter.touch()
    with EmbeddedRedis(data / "redis") as server, connect_redis(server.url) as client:
        client.config_set("auto-aof-rewrite-percentage", "0")
        yield Backlog(waiting, server, client, counter, folder)
