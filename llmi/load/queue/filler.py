"""Posts no-op requests that nobody awaits: `python -m llmi.load.queue.filler URL`.

It writes `ready`. Then each line on stdin is `FIRST COUNT`: it posts the requests with these numbers by
`workers.client.blocking.post`, as an evaluation does, and writes `posted`. It ends when stdin is closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmi.load.queue.child import LineChild, line_child
from llmi.load.queue.noop import QUEUE, TIMEOUT_S, Noop
from workers.client.blocking import post
from workers.messages import Request
from workers.process.interpreter import PYTHON
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis

TEXT = "a picture of a lighthouse on a cliff at dusk, seen from the sea " * 3  # as long as a usual prompt
STAY_S = 7200.0  # longer than a benchmark lasts
UNLIMITED = 10_000_000
POST_S = 120.0


def main(url: str) -> None:
    with connect_redis(url, SCAN_TIMEOUT_S) as client:
        _answer("ready")
        for line in sys.stdin:
            first, count = map(int, line.split())
            requests = [_request(number) for number in range(first, first + count)]
            states = post(client, requests, UNLIMITED)
            if set(states.values()) != {"posted"}:
                sys.exit(f"{count} requests from number {first} on were not all posted")
            _answer("posted")


def _answer(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _request(number: int) -> Request:
    return Request.make(
        QUEUE, Noop(text=TEXT), timeout_s=STAY_S, limit_s=TIMEOUT_S, request_id=f"bench-{number:08d}"
    )


class Filler:
    """The process, as others see it. Blocking. Made by `filler`."""

    def __init__(self, child: LineChild):
        self._child = child

    def post(self, first: int, count: int) -> None:
        """Post the requests with the numbers from `first` on. Raises `InfrastructureFault`."""
        self._child.write(f"{first} {count}")
        self._child.read(POST_S)


@contextmanager
def filler(url: str, log: Path) -> Iterator[Filler]:
    """Start the process, and wait until it is ready. It ends with the context."""
    command = [*PYTHON, "-m", "llmi.load.queue.filler", url]
    with line_child(command, log, os.environ) as child:
        child.read(POST_S)
        yield Filler(child)


if __name__ == "__main__":
    main(sys.argv[1])
