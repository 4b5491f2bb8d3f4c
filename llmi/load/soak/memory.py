"""Memory and open files of every process by role, and whether they stayed flat.

Invariants: a reading costs milliseconds; the largest process of a role counts, so that a replaced process
continues its series; the first third of a soak is left out, in which caches fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from coordinator.host.processes import descendants

MIB = 2**20
GROWTH = 1.05  # allowed growth of the last third over the middle one, and
SLACK_BYTES = 8 * MIB  # this much more, for allocator steps
FILES = 3  # more open files that are allowed: connections change
ROLES = (
    ("llmi.load.testbed.provider", "images and judges"),
    ("workers.sandbox", "jail"),
    ("MainProcess", "worker"),
    ("ForkPoolWorker", "pool process"),
    ("valkey", "Redis"),
    ("redis-server", "Redis"),
)


@dataclass(frozen=True)
class Reading:
    """One role at one moment: its processes, the resident memory (bytes) and open files of the largest."""

    time_s: float
    role: str
    processes: int
    rss: int
    files: int


@dataclass(frozen=True)
class Series:
    """One role over a soak. `middle`, `last`: medians of the largest process's memory (bytes) and open files
    in the middle and the last third.
    """

    role: str
    processes: int
    middle_rss: float
    last_rss: float
    middle_files: float
    last_files: float

    @property
    def flat(self) -> bool:
        return (
            self.last_rss <= GROWTH * self.middle_rss + SLACK_BYTES
            and self.last_files <= self.middle_files + FILES
        )


def read(time_s: float) -> list[Reading]:
    """This process ("rollouts") and all below it."""
    found: dict[str, list[tuple[int, int]]] = {}
    for process in (psutil.Process(), *descendants()):
        try:
            with process.oneshot():
                role = _role(process)
                found.setdefault(role, []).append((process.memory_info().rss, process.num_fds()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended, or is jailed code under another user
    return [
        Reading(time_s, role, len(sizes), max(rss for rss, _ in sizes), max(files for _, files in sizes))
        for role, sizes in found.items()
    ]


def _role(process: psutil.Process) -> str:
    if process.pid == psutil.Process().pid:
        return "rollouts"
    words = " ".join(process.cmdline())
    return next((role for part, role in ROLES if part in words), "other")


def series(readings: Sequence[Reading]) -> list[Series]:
    """One series for each role that has readings in both thirds."""
    end = max((reading.time_s for reading in readings), default=0.0)
    found = []
    for role in dict.fromkeys(reading.role for reading in readings):
        own = [reading for reading in readings if reading.role == role]
        middle = [reading for reading in own if end / 3 <= reading.time_s < 2 * end / 3]
        last = [reading for reading in own if reading.time_s >= 2 * end / 3]
        if middle and last:
            found.append(
                Series(
                    role=role,
                    processes=round(median(reading.processes for reading in last)),
                    middle_rss=median(reading.rss for reading in middle),
                    last_rss=median(reading.rss for reading in last),
                    middle_files=median(reading.files for reading in middle),
                    last_files=median(reading.files for reading in last),
                )
            )
    return found
