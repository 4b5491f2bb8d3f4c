"""Jobs that do nothing, in place of the jobs of two queues; `llmi.load.queue.noop_app` registers them.

Invariant: neither calls an outside service nor keeps a model, so that no circuit breaker is read.
"""

from __future__ import annotations

import functools
import os

from workers.jobs import JobContext, job
from workers.messages import Message, Success

QUEUE, BESIDE = "search", "judge_text"
TIMEOUT_S = 60.0  # of a request that is awaited
COUNTER_ENV = "BENCH_COUNTER"


class Noop(Message):
    """`text`: only makes the message larger."""

    text: str = ""


def count(_payload: Noop, _ctx: JobContext) -> Success:
    """Append a byte to the file named by BENCH_COUNTER, if it is set."""
    if counter := _counter(os.getpid()):
        os.write(counter, b".")
    return Success()


def nothing(_payload: Noop, _ctx: JobContext) -> Success:
    """Do nothing."""
    return Success()


def register_jobs() -> None:
    """Put them in place of the jobs of `QUEUE` and `BESIDE`, in this process."""
    job(QUEUE, Noop)(count)
    job(BESIDE, Noop)(nothing)


@functools.cache
def _counter(_pid: int) -> int:
    """The open file, 0 for none. Its size is the number of jobs: single bytes are appended atomically."""
    path = os.environ.get(COUNTER_ENV)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else 0
