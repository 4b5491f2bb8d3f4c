"""The task queues that `llmi bench queue` compares: the commands of their workers, and their packages.

Invariant: all have the same number of jobs at once, in processes or in threads. The coroutines of taskiq and
arq count as threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Pool = Literal["prefork", "threads"]
Commands = list[list[str]]


@dataclass(frozen=True)
class Options:
    """What is measured.

    `requests`, `in_flight`: of a throughput measurement. `singles`: requests posted one at a time. `slots`:
    jobs at once. `waiting`: backlogs, the smallest first. `seconds`: of each measurement at a backlog.
    `others`: also measure the contestants that need packages from PyPI.
    """

    requests: int = 2000
    in_flight: int = 64
    singles: int = 300
    rounds: int = 5
    slots: int = 4
    pool: Pool = "prefork"
    waiting: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)
    seconds: float = 5.0
    others: bool = True


@dataclass(frozen=True)
class Contestant:
    """`script`: its module in `scripts/`. `workers`: arguments of Python for each worker process, by pool and
    slots; None: the workers of this program. `packages`: what it needs in a virtual environment of its own,
    with versions; empty: this one.
    """

    name: str
    script: str
    workers: Callable[[Pool, int], Commands] | None = None
    packages: tuple[str, ...] = ()


def _celery(pool: Pool, slots: int) -> Commands:
    options = ["-P", pool, "-c", str(slots), "-l", "warning", "--without-gossip", "--without-mingle"]
    return [["-m", "celery", "-A", "celery_queue", "worker", *options]]


def _dramatiq(pool: Pool, slots: int) -> Commands:
    processes, threads = _split(pool, slots)
    return [["-m", "dramatiq", "dramatiq_queue", "--processes", processes, "--threads", threads]]


def _taskiq(pool: Pool, slots: int) -> Commands:
    processes, at_once = _split(pool, slots)
    options = ["--workers", processes, "--max-async-tasks", at_once, "--log-level", "WARNING"]
    return [["-m", "taskiq", "worker", "taskiq_queue:broker", *options]]


def _arq(pool: Pool, slots: int) -> Commands:
    processes, _ = _split(pool, slots)  # BENCH_SLOTS has the other number
    return [["-m", "arq", "arq_queue.Worker"]] * int(processes)


def _lists(pool: Pool, slots: int) -> Commands:
    processes, threads = _split(pool, slots)
    return [["-m", "redis_lists", threads]] * int(processes)


def _split(pool: Pool, slots: int) -> tuple[str, str]:
    """The number of processes, and of jobs at once in each."""
    return (str(slots), "1") if pool == "prefork" else ("1", str(slots))


def slots_per_process(pool: Pool, slots: int) -> str:
    """Jobs at once in one process."""
    return _split(pool, slots)[1]


OURS = Contestant("llmi", "llmi_queue")
CELERY = Contestant("Celery", "celery_queue", _celery)
RAW = Contestant("two Redis lists", "redis_lists", _lists)
OTHERS = (
    Contestant("dramatiq", "dramatiq_queue", _dramatiq, ("dramatiq==2.2.1", "redis==8.1.0")),
    Contestant(
        "taskiq",
        "taskiq_queue",
        _taskiq,
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "uvloop==0.23.0"),
    ),
    Contestant("arq", "arq_queue", _arq, ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0")),
)


def contestants(options: Options) -> tuple[Contestant, ...]:
    """Those that are measured, in the order of a round."""
    return (OURS, CELERY, *(OTHERS if options.others else ()), RAW)
