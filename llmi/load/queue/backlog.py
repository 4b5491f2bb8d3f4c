"""The queues of this program with a long backlog: throughput, latency beside it, time of each Redis command.

One worker consumes from the backlog, and as many requests are posted to it as are done, so that its length
stays. Another worker, with one slot, serves a second queue. Its requests are posted one at a time, and only
these are timed: the time of a request behind a million others would be the time that those take.

Invariants: every backlog has a Redis of its own, filled once; only one is measured at a time; no Redis writes
its file anew meanwhile.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
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
from llmi.load.queue.trial import LOGS, WARM, Load, Trial, finish, own_workers, producer
from workers.redis_client import connect_redis

FILLERS = 2
CHUNK = 2000  # requests that a filler posts at once
TOP_UP_S = 0.02
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
        """Measure for `options.seconds`, with workers and a client started for it."""
        load = Load(WARM, 0, 1, options.singles, options.seconds)
        slots = {QUEUE: options.slots, BESIDE: 1}
        python, more = Path(sys.executable), {COUNTER_ENV: str(self._counter)}
        with (
            own_workers(self._url, options, self._folder, slots, **more),
            self._topped_up(),
            producer(OURS, python, self._url, self._folder, load, BESIDE) as client,
        ):
            self.client.config_resetstat()
            began, done = time.perf_counter(), self.done
            numbers = finish(client, load)
            seconds, done = time.perf_counter() - began, self.done - done
            commands = self._commands()
        beside = Trial.of(numbers)
        per_s = (done + len(numbers["latencies_s"])) / seconds
        return Window(per_s, beside.p50, beside.p99, commands)

    @contextlib.contextmanager
    def _topped_up(self) -> Iterator[None]:
        """Post as many requests as are done, in a thread."""
        end = threading.Event()

        def top_up(one: Filler) -> None:
            while not end.wait(TOP_UP_S):
                if missing := self.waiting + self.done - self.posted:
                    one.post(self.posted, missing)
                    self.posted += missing

        with self._filler() as one, ThreadPoolExecutor(1) as pool:
            running = pool.submit(top_up, one)
            try:
                yield
            finally:
                end.set()
            running.result()

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
