"""Memory and open files of every process by role: readings, whether they stayed flat, and a picture of them.

Invariants: a reading costs milliseconds; the largest process of a role counts, so that a replaced process
continues its series; the first third of a soak is left out, in which caches fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil

from coordinator.host.processes import descendants

if TYPE_CHECKING:
    from llmi.load.soak.bench import Soak

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


def draw(soak: Soak, path: Path) -> None:
    """Write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    memory, files = figure.subplots(2, 1, sharex=True)
    for one in soak.series:
        own = [reading for reading in soak.readings if reading.role == one.role]
        minutes = [reading.time_s / 60 for reading in own]
        label = f"{one.role} ({one.processes})" if one.processes > 1 else one.role
        memory.plot(minutes, [reading.rss / MIB for reading in own], label=label, linewidth=1.2)
        files.plot(minutes, [reading.files for reading in own], linewidth=1.2)
    memory.set_ylabel("resident memory, MiB")
    files.set_ylabel("open files")
    files.set_xlabel("minutes")
    for axes in (memory, files):
        axes.set_ylim(bottom=0)
        axes.axvspan(0, soak.seconds / 180, color="0.93", zorder=0)  # the third that is not judged
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    rate = soak.requests / soak.seconds
    memory.set_title(
        f"{soak.requests:,} requests in {soak.seconds / 60:.0f} minutes ({rate:.0f}/s): the largest process "
        "of each role",
        fontsize=10,
        loc="left",
    )
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=6)
    figure.savefig(path, dpi=120)
