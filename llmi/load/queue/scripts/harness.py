"""Measure one contestant: `python harness.py MODULE '{"warm": 64, "requests": 2000, ...}'`.

It sends some requests until everything is warm, writes `ready`, waits for a line on stdin, measures, and
writes one line of JSON. Imports the standard library and the contestant only.

A contestant is a module that reads the URL of its Redis from BENCH_REDIS_URL, and has either
- `post()`, which returns a handle, and `wait(handle)`: a blocking client; or
- `start()`, `request()` and `close()`: coroutines of an asyncio client. `request` posts and awaits the
  outcome.
Each raises when an outcome is no success, or is late.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Latencies:
    """The seconds of requests that are posted one after another: at least `count`, for at least `limit_s`."""

    def __init__(self, count: int, limit_s: float):
        self.seconds: list[float] = []
        self._count, self._until = count, time.perf_counter() + limit_s
        self._began = 0.0

    def more(self) -> bool:
        """Whether to post another one. A call ends the time of the request before it."""
        now = time.perf_counter()
        if self._began:
            self.seconds.append(now - self._began)
        self._began = now
        return len(self.seconds) < self._count or now < self._until


class Blocking:
    """A blocking client in one thread."""

    def __init__(self, contestant: Any):
        self._post, self._wait = contestant.post, contestant.wait

    def burst(self, requests: int, in_flight: int) -> None:
        """Post `requests`, `in_flight` at once, and wait for all. The oldest one is awaited first."""
        handles: deque[Any] = deque()
        for _ in range(requests):
            if len(handles) == in_flight:
                self._wait(handles.popleft())
            handles.append(self._post())
        while handles:
            self._wait(handles.popleft())

    def singles(self, count: int, seconds: float) -> list[float]:
        """The seconds of each request posted alone: at least `count`, for at least `seconds`."""
        taken = Latencies(count, seconds)
        while taken.more():
            self._wait(self._post())
        return taken.seconds


class Async:
    """An asyncio client, on one event loop. `run`: runs a coroutine on it."""

    def __init__(self, contestant: Any, run: Callable[[Any], Any]):
        self._request, self._run = contestant.request, run

    def burst(self, requests: int, in_flight: int) -> None:
        """Post `requests`, `in_flight` at once, and await all."""
        self._run(self._burst(requests, in_flight))

    def singles(self, count: int, seconds: float) -> list[float]:
        """As `Blocking.singles`, in one run of the event loop."""
        return self._run(self._singles(Latencies(count, seconds)))

    async def _singles(self, taken: Latencies) -> list[float]:
        while taken.more():
            await self._request()
        return taken.seconds

    async def _burst(self, requests: int, in_flight: int) -> None:
        left = iter(range(requests))

        async def one_after_another() -> None:
            for _ in left:
                await self._request()

        await asyncio.gather(*(one_after_another() for _ in range(min(requests, in_flight))))


def measure(
    client: Blocking | Async, warm: int, requests: int, in_flight: int, singles: int, seconds: float
) -> dict[str, Any]:
    """Requests per second with `in_flight` at once; then the seconds of each request posted alone, at least
    `singles` of them and for at least `seconds`.
    """
    client.burst(warm, in_flight)
    _write("ready")
    sys.stdin.readline()
    began = time.perf_counter()
    client.burst(requests, in_flight)
    taken_s = time.perf_counter() - began
    return {"per_s": requests / taken_s, "latencies_s": client.singles(singles, seconds)}


def main(module: str, options: dict[str, Any]) -> None:
    """Write the numbers of the contestant `module` as JSON."""
    contestant = importlib.import_module(module)
    if hasattr(contestant, "post"):
        _write(json.dumps(measure(Blocking(contestant), **options)))
        return
    import uvloop  # installed wherever an asyncio contestant runs

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(contestant.start())
        _write(json.dumps(measure(Async(contestant, runner.run), **options)))
        runner.run(contestant.close())


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
