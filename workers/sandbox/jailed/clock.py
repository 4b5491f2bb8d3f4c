"""The wall-clock time of a job, and how long it waited for a CPU.

Invariant: a job cannot lengthen its own waiting time. The CPU time of its other threads is subtracted from
what its first one waited. Without seccomp, where a job could lower its own priority, waiting is not counted
at all.
"""

from __future__ import annotations

import contextlib
import os
import time

_NANO = 1e-9
_PER_PROCESS = 2  # the clock that counts the CPU of all threads of a process


class Clock:
    """Times the child `pid` from now on.

    `proc`: a descriptor of the machine's /proc. `count_waiting`: whether waiting for a CPU is counted.
    """

    def __init__(self, proc: int, pid: int, count_waiting: bool) -> None:
        self._proc, self._pid = proc, pid
        self._began = time.monotonic()
        self._outside = ""
        if count_waiting:
            with contextlib.suppress(
                OSError, IndexError
            ):  # a /proc that hides processes, a kernel without this file
                self._outside = read_at(proc, "thread-self/children").split()[0].decode()

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began

    def waited_s(self) -> float:
        """Seconds in which the child was ready to run and other processes had the CPU.

        The child may be dead but not reaped. 0 where the kernel does not report it.
        """
        if not self._outside:
            return 0.0
        try:
            used, waited = read_at(self._proc, f"{self._outside}/schedstat").split()[:2]
            used_by_all = time.clock_gettime(~self._pid << 3 | _PER_PROCESS)
        except (OSError, ValueError):
            return 0.0
        return max(0.0, int(waited) * _NANO - max(0.0, used_by_all - int(used) * _NANO))

    def run_s(self) -> float:
        """Wall-clock seconds in which the job computed, slept or waited for its own threads."""
        return self.wall_s - self.waited_s()


def read_at(folder: int, path: str) -> bytes:
    """Read a small file below the descriptor `folder`."""
    with open(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()
