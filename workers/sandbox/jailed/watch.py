"""Watch a child until it has reported, has ended, or has used up a limit; then end it.

Invariants: only the length of what it writes is looked at; it is judged by its own time; when it was ended,
it is dead and reaped.
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
from workers.sandbox.layers.creations import Counter
from workers.sandbox.layers.folder import Folder

_SLACK_BYTES = 64 << 10  # a frame's header beyond its images
_WATCH_S = 0.05
_DYING_S = 2.0  # from closing its last descriptor to being dead, under load


class WorkerGone(Exception):
    """The worker closed its side: nobody waits for an answer."""


def collect(
    reader: int,
    inbox: int,
    limit: limits.Limits,
    clock: Clock,
    folder: Folder | None,
    counter: Counter | None,
) -> tuple[str, memoryview]:
    """Read the child's one frame: how that ended (frame, closed, run, wall, output or files), and the
    bytes.
    """
    most = limit.output_mb * limits.MEBIBYTE + _SLACK_BYTES
    prefix = 1 + protocol.LENGTH_BYTES
    room, count = protocol.room(prefix + most), 0
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(inbox, 0)  # wakes up only when the worker is gone
    if counter:
        counter.watch(poll)
    looked = 0.0
    while True:
        passed = clock.wall_s
        if passed >= limit.run_s and clock.run_s() >= limit.run_s:
            return "run", room[:count]
        if passed >= limit.wall_s:
            return "wall", room[:count]
        if folder and passed - looked >= _WATCH_S:  # not for each file that it creates
            looked = passed
            if folder.full():
                return "files", room[:count]
        for descriptor, event in poll.poll(min(limit.wall_s - passed, _WATCH_S) * 1000 + 1):
            if descriptor == inbox and event & (select.POLLHUP | select.POLLERR):
                raise WorkerGone
            if counter and counter.serve(descriptor, event):
                continue
            if descriptor != reader:
                continue
            got = os.readv(reader, [room[count:]])
            if not got:
                return "closed", room[:count]
            count += got
            if room[:1] != protocol.ARMED or count < prefix:
                continue
            size = protocol.length(room[1:prefix])
            if size > most:
                return "output", room[:count]
            if count >= prefix + size:
                return "frame", room[: prefix + size]


def ended_by_itself(pid: int) -> bool:
    """Whether a child whose pipe is closed is dead, not merely silent: only then does its status tell why."""
    deadline = time.monotonic() + _DYING_S
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(0.001)
    return False


def end(pid: int) -> tuple[int, Any]:
    """Kill a child and its group, and wait for it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while True:
        _, status, usage = os.wait4(pid, 0)
        if not os.WIFSTOPPED(status):  # of a child that asked to be traced, each stop is reported
            return status, usage


def end_all() -> None:
    """Kill and reap whatever else lives in a namespace that is the zygote's: without seccomp, a job may have
    started processes.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
