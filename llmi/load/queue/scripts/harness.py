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

    def single(self) -> None:
        """Post one request and wait for its outcome."""
        self._wait(self._post())


class Async:
    """An asyncio client, on one event loop. `run`: runs a coroutine on it."""

    def __init__(self, contestant: Any, run: Callable[[Any], object]):
        self._request, self._run = contestant.request, run

    def burst(self, requests: int, in_flight: int) -> None:
        """Post `requests`, `in_flight` at once, and await all."""
        self._run(self._burst(requests, in_flight))

    def single(self) -> None:
        """Post one request and await its outcome."""
        self._run(self._request())

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
    latencies: list[float] = []
    began = time.perf_counter()
    while len(latencies) < singles or time.perf_counter() - began < seconds:
        posted = time.perf_counter()
        client.single()
        latencies.append(time.perf_counter() - posted)
    return {"per_s": requests / taken_s, "latencies_s": latencies}


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
