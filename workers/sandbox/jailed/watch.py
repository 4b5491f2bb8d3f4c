"""Read a child's frame until it is complete, the child exits, or a limit is reached; and kill the child.

Invariants:
- of what it writes only the length is read;
- the run limit applies to its own time (see `clock`);
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
from workers.sandbox.jailed.clock import Clock
from workers.sandbox.layers import limits
from workers.sandbox.layers.creations import CreationCounter
from workers.sandbox.layers.folder import Folder

_SLACK_BYTES = 64 << 10  # a frame's header beyond its images
_CHECK_S = 0.05
_EXIT_S = 2.0  # from closing its last descriptor to exiting, under load


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
