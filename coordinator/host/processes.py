"""The processes that a run starts, directly or indirectly: finding them, measuring their memory, ending them.

Invariants:
- After `adopt_orphans`, a process whose parent dies stays a descendant, so that `descendants` finds all.
- `end_all` returns when none is left, or at its deadline.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
import time
from collections.abc import Callable

import psutil

logger = logging.getLogger(__name__)
PR_SET_CHILD_SUBREAPER = 36
NEW_PEAK = 1.01  # so many times the highest resident memory so far
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants() -> list[psutil.Process]:
    """Every running descendant of this process, without zombies."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def end_all(deadline_s: float, keep: frozenset[int] = frozenset()) -> list[int]:
    """End all descendants: SIGTERM, and SIGKILL after half of the deadline.

    Returns the ids of the killed ones.
    """
    killed: list[int] = []
    for sign, share in ((signal.SIGTERM, 0.5), (signal.SIGKILL, 0.5)):
        left = [process for process in descendants() if process.pid not in keep]
        for process in left:
            try:
                process.send_signal(sign)
            except psutil.NoSuchProcess:
                continue
            if sign is signal.SIGKILL:
                killed.append(process.pid)
        _, alive = psutil.wait_procs(left, timeout=deadline_s * share)
        if not alive and not [process for process in descendants() if process.pid not in keep]:
            break
    if killed:
        logger.info("killed %d processes that did not end on SIGTERM", len(killed))
    return killed


def rss_bytes() -> int:
    """Sum of the resident memory of this process and its descendants; shared pages count once per process."""
    return _total(lambda process: process.memory_info().rss)


def memory_bytes() -> int:
    """Memory of this process and its descendants together. A shared page counts once (Linux's PSS).

    Costs some ms of CPU for each process.
    """
    return _total(_share)


def _share(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.AccessDenied:  # it has another user, as jailed code does
        return process.memory_info().rss


def _total(measure: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in (psutil.Process(), *descendants()):
        try:
            total += measure(process)
        except psutil.NoSuchProcess:
            continue
    return total


class MemoryWatch:
    """A thread that measures `memory_bytes`: the latest value is `now`, the highest is `peak`.

    It measures every `slow_s` seconds. In between it reads the cheaper `rss_bytes` every `quick_s` seconds,
    and measures when that has a new peak.
    """

    def __init__(self, quick_s: float = 2.0, slow_s: float = 10.0):
        self.now = 0
        self.peak = 0
        self._quick_s = quick_s
        self._slow_s = slow_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._quick_s + 5)

    def _run(self) -> None:
        highest, due = 0, 0.0
        while True:
            rss = rss_bytes()
            if rss > NEW_PEAK * highest or time.monotonic() >= due:
                self.now = memory_bytes()
                self.peak = max(self.peak, self.now)
                highest, due = max(rss, highest), time.monotonic() + self._slow_s
            if self._stop.wait(self._quick_s):
                return
