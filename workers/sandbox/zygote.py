"""The zygote: one warm, single-threaded process that forks a jailed child per job.

`python -m workers.sandbox.zygote FOLDER TRADE [--bubblewrap PROGRAM]`; FOLDER is made where there is no
private root; TRADE is one of `TRADES`, or `probe`. Speaks frames on its standard input and output: first a
hello that says which layers hold (for `probe` that is all), then one answer per request. Invariants: one job
at a time; when it answers, the job's processes are dead and its folder gone; the next job finds nothing of it
in the memory that it is forked from; what an armed child does is the doing of what it was given, unless the
machine gave it no CPU; it ends when its input closes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.sandbox import bubblewrap, child, decoding, drawing, limits, namespaces, paths, probe, protocol
from workers.sandbox.folder import Folder, remove_tree
from workers.sandbox.world import World

Job = Callable[[], child.Report]
Work = Callable[[dict[str, Any], memoryview], child.Report]  # a job, of a request's order and body
# What a zygote can be for: each loads its libraries (it may write below the folder) and returns its work.
TRADES: dict[str, Callable[[str], Work]] = {"charts": drawing.warm, "pictures": decoding.warm}
_SLACK_BYTES = 64 << 10  # a frame's header beyond its images
_WATCH_S = 0.05
_NANO = 1e-9
_DYING_S = 2.0  # from closing its last descriptor to being dead, under load


class WorkerGone(Exception):
    """The worker closed its side: nobody waits for an answer."""


@dataclass(frozen=True)
class Zygote:
    jail: child.Jail
    world: World
    work: Work
    base: str
    base_bytes: int
    proc: int  # the machine's /proc: the private root has none, and no child keeps a descriptor

    def job(self, limit: limits.Limits, work: Job, inbox: int) -> tuple[dict[str, Any], memoryview]:
        """Run one job to its end: the verdict's header, and the child's own frame where it sent one."""
        if not limit.files_mb:
            return self._watch(limit, work, inbox, None)
        folder = Folder(self.base, self.world, limit.files_mb)
        folder.make(self.jail.user)
        try:
            return self._watch(limit, work, inbox, folder)
        finally:
            folder.remove()

    def _watch(
        self, limit: limits.Limits, work: Job, inbox: int, folder: Folder | None
    ) -> tuple[dict[str, Any], memoryview]:
        reader, writer = os.pipe()
        protocol.widen(writer)
        path = folder.path if folder else None
        parent, started = os.getpid(), time.monotonic()
        pid = os.fork()
        if pid == 0:
            child.run(self.jail, limit, self.base_bytes, path, writer, parent, work)
        os.close(writer)
        try:
            end, content = _collect(reader, inbox, limit, folder)
            if end == "closed" and not _ended_by_itself(pid):
                end = "silent"
            waited_s = self._waited_s()
        finally:
            os.close(reader)
            status, usage = _end(pid)
            if self.world.processes:
                _end_all()
        armed, frame = content[:1] == protocol.ARMED, content[1 + protocol.LENGTH_BYTES :]
        header = {
            "end": end if armed or end != "frame" else "closed",
            "armed": armed,
            "reason": "" if armed else bytes(content[1:2000]).decode(errors="replace"),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) and end == "closed" else 0,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": time.monotonic() - started,
            "waited_s": waited_s,
        }
        return header, frame if end == "frame" else frame[:0]

    def _waited_s(self) -> float:
        """How long the oldest child, which is not reaped, was ready to run and had no CPU; 0 where the kernel
        does not tell.
        """
        try:  # outside, its number may be another
            pid = _read_at(self.proc, "thread-self/children").split()[0].decode()
            return int(_read_at(self.proc, f"{pid}/schedstat").split()[1]) * _NANO
        except (OSError, IndexError):  # a kernel without these two files, or a /proc that hides
            return 0.0


def _collect(reader: int, inbox: int, limit: limits.Limits, folder: Folder | None) -> tuple[str, memoryview]:
    """Read the child's one frame: how that ended (frame, closed, wall, output or files), and the bytes."""
    most = limit.output_mb * limits.MEBIBYTE + _SLACK_BYTES
    prefix = 1 + protocol.LENGTH_BYTES
    deadline = time.monotonic() + limit.wall_s
    room, count = protocol.room(prefix + most), 0
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(inbox, 0)  # only tells of a worker that is gone
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return "wall", room[:count]
        if folder and folder.full():
            return "files", room[:count]
        for descriptor, event in poll.poll(min(left, _WATCH_S) * 1000 + 1):
            if descriptor == inbox and event & (select.POLLHUP | select.POLLERR):
                raise WorkerGone
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


def _ended_by_itself(pid: int) -> bool:
    """Whether a child whose pipe is closed is dead, not merely silent: only then does its status tell why."""
    deadline = time.monotonic() + _DYING_S
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(0.001)
    return False


def _end(pid: int) -> tuple[int, Any]:
    """Kill a child and its group, and wait for it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _, status, usage = os.wait4(pid, 0)
    return status, usage


def _end_all() -> None:
    """Kill and reap whatever else lives in a namespace that is the zygote's: without seccomp, a job may have
    started processes.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _read_at(folder: int, path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


def serve(zygote: Zygote, inbox: int, outbox: int) -> None:
    """Answer requests until the worker is gone."""
    with contextlib.suppress(EOFError, WorkerGone, BrokenPipeError):
        while True:
            _serve_one(zygote, inbox, outbox)


def _serve_one(zygote: Zygote, inbox: int, outbox: int) -> None:
    """Request and answer are gone when this returns: the next job is a fork of this process, and sees its
    memory.
    """
    size = protocol.length(protocol.read_exactly(inbox, protocol.LENGTH_BYTES))
    header, body = protocol.unpack(protocol.read_exactly(inbox, size))
    work = functools.partial(zygote.work, header["order"], body)
    answer, frame = zygote.job(limits.Limits(**header["limits"]), work, inbox)
    protocol.write_frame(outbox, answer, frame)


def main() -> None:
    """Enter the outer layer, probe all layers, warm up, say hello, serve."""
    asked = _arguments()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if asked.inside is None else asked.inside
    if asked.bubblewrap and asked.inside is None:
        bubblewrap.enter(asked.bubblewrap, sys.argv[1:], proc)
    inbox, outbox = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # whatever a library prints while it is imported must not look like a frame
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the worker's to handle
    world = namespaces.enter() if asked.inside is None else bubblewrap.arrive()
    sys.path[:] = paths.packages()
    base = world.base or asked.folder
    if not world.base:
        os.mkdir(base)
    try:
        found = probe.probe(world, base, (limits.own_user(), limits.NOBODY))
        hello = protocol.pack({"maker": world.maker, "layers": found.layers})
        if asked.trade == "probe":
            protocol.write_all(outbox, hello)
            return
        work = TRADES[asked.trade](base)
        world.seal()
        gc.collect()
        gc.freeze()
        pages = int(_read_at(proc, "self/statm").split()[0])
        zygote = Zygote(found.jail, world, work, base, pages * os.sysconf("SC_PAGE_SIZE"), proc)
        protocol.write_all(outbox, hello)
        serve(zygote, inbox, outbox)
    finally:
        if not world.base:
            with contextlib.suppress(OSError):  # the worker may be removing it too
                remove_tree(base)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("trade", choices=(*TRADES, "probe"))
    parser.add_argument("--bubblewrap", help="the program, where it is installed")
    parser.add_argument(bubblewrap.INSIDE, type=int, help="already inside of it; a descriptor of /proc")
    return parser.parse_args()


if __name__ == "__main__":
    main()
