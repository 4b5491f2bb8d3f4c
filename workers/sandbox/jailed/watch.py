"""Read a child's frame until it is complete, the child exits, or a limit is reached; and kill the child.

Invariants:
- of what it writes only the length is read;
- the run limit applies to its own time: wall-clock time without what it waited for a CPU;
- a job cannot lengthen its own waiting time. The CPU time of its other threads is subtracted from what its
  first one waited. Without seccomp, where a job could lower its own priority, waiting is not counted at all;
- after `kill` it is dead and reaped.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any

from workers.sandbox import protocol
from workers.sandbox.layers import limits
from workers.sandbox.layers.creations import CreationCounter
from workers.sandbox.layers.folder import Folder

_SLACK_BYTES = 64 << 10  # a frame's header beyond its images
_CHECK_S = 0.05
_EXIT_S = 2.0  # from closing its last descriptor to exiting, under load
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


class WorkerGone(Exception):
    """The worker closed its side of the pipe; no answer is needed."""


def collect(
    reader: int,
    inbox: int,
    limit: limits.Limits,
    clock: Clock,
    folder: Folder | None,
    counter: CreationCounter | None,
) -> tuple[str, memoryview]:
    """Read the child's one frame: how that ended (frame, closed, run, wall, output or files), and the bytes.

    `reader`: the child's pipe. `inbox`: the pipe from the worker. Raises `WorkerGone`.
    """
    most = limit.output_mb * limits.MEBIBYTE + _SLACK_BYTES
    prefix = 1 + protocol.LENGTH_BYTES
    buffer, count = protocol.private_buffer(prefix + most), 0
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(inbox, 0)  # only reports that the worker is gone
    if counter:
        counter.watch(poll)
    checked = 0.0
    while True:
        passed = clock.wall_s
        if passed >= limit.run_s and clock.run_s() >= limit.run_s:
            return "run", buffer[:count]
        if passed >= limit.wall_s:
            return "wall", buffer[:count]
        if folder and passed - checked >= _CHECK_S:  # rarely: it reads the whole folder
            checked = passed
            if folder.full():
                return "files", buffer[:count]
        for descriptor, event in poll.poll(min(limit.wall_s - passed, _CHECK_S) * 1000 + 1):
            if descriptor == inbox and event & (select.POLLHUP | select.POLLERR):
                raise WorkerGone
            if counter and counter.serve(descriptor, event):
                continue
            if descriptor != reader:
                continue
            got = os.readv(reader, [buffer[count:]])
            if not got:
                return "closed", buffer[:count]
            count += got
            if buffer[:1] != protocol.ARMED or count < prefix:
                continue
            size = protocol.length(buffer[1:prefix])
            if size > most:
                return "output", buffer[:count]
            if count >= prefix + size:
                return "frame", buffer[: prefix + size]


def exited(pid: int) -> bool:
    """Whether a child that closed its pipe has exited. Only then does its status say why."""
    deadline = time.monotonic() + _EXIT_S
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(0.001)
    return False


def kill(pid: int) -> tuple[int, Any]:
    """Kill a child and its process group, and return its wait status and resource usage."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while True:
        _, status, usage = os.wait4(pid, 0)
        if not os.WIFSTOPPED(status):  # a child that asked to be traced reports each stop
            return status, usage


def kill_all() -> None:
    """Kill and reap every other process of the zygote's namespace.

    Without seccomp, a job may start processes.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
