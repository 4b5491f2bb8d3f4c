"""The zygote: one warm, single-threaded process that forks a jailed child per job.

`python -m workers.sandbox.jailed.zygote FOLDER TRADE [--bubblewrap PROGRAM]`; FOLDER is made where there is
no private root; TRADE is one of `TRADES`, or `probe`. Speaks frames on its standard input and output: first a
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
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.sandbox import protocol
from workers.sandbox.jailed import child, decoding, drawing, probe, watch
from workers.sandbox.jailed.clock import Clock, read_at
from workers.sandbox.layers import bubblewrap, limits, namespaces, paths
from workers.sandbox.layers.creations import Counter
from workers.sandbox.layers.folder import Folder, remove_tree
from workers.sandbox.layers.world import World

Job = Callable[[], child.Report]
Work = Callable[[dict[str, Any], memoryview], child.Report]  # a job, of a request's order and body
# What a zygote can be for: each loads its libraries (it may write below the folder) and returns its work.
TRADES: dict[str, Callable[[str], Work]] = {"charts": drawing.warm, "pictures": decoding.warm}


class NotRemoved(Exception):
    """What a job left could not be removed, and no other job may find it. `answer`: of that job."""

    def __init__(self, header: dict[str, Any], frame: memoryview) -> None:
        super().__init__("a job's folder could not be removed")
        self.answer = header, frame


@dataclass(frozen=True)
class Zygote:
    """`files`: jobs can be given a folder that is bounded; `base_bytes`, `base_resident`: address space and
    memory of the warm libraries; `proc`: the machine's /proc, for the private root has none, and no child
    keeps a descriptor.
    """

    jail: child.Jail
    world: World
    files: bool
    work: Work
    base: str
    base_bytes: int
    base_resident: int
    proc: int

    def job(self, limit: limits.Limits, work: Job, inbox: int) -> tuple[dict[str, Any], memoryview]:
        """Run one job to its end: the verdict's header, and the child's own frame where it sent one. Raises
        `NotRemoved`, with both, when the job left what could not be removed.
        """
        if not (limit.files_mb and self.files):
            return self._watch(limit, work, inbox, None)
        folder = Folder(self.base, self.world, limit.files_mb)
        folder.make(self.jail.user)
        try:
            answer = self._watch(limit, work, inbox, folder)
        except BaseException:
            with contextlib.suppress(OSError):  # the zygote ends, and the worker removes what is left
                folder.remove()
            raise
        began = time.monotonic()
        try:
            folder.remove()
        except OSError as error:
            raise NotRemoved(*answer) from error
        finally:
            answer[0]["run_s"] += time.monotonic() - began  # the removal counts as the job's time
        return answer

    def _watch(
        self, limit: limits.Limits, work: Job, inbox: int, folder: Folder | None
    ) -> tuple[dict[str, Any], memoryview]:
        reader, writer = os.pipe()
        protocol.widen(writer)
        counter = None if folder is None or self.world.mounts else Counter(limits.MAX_ENTRIES)
        channel = counter.channel if counter else None
        path, parent = folder.path if folder else None, os.getpid()
        pid = os.fork()
        if pid == 0:
            _let_it_be_killed_first(self.proc)
            child.run(self.jail, limit, self.base_bytes, path, writer, parent, work, channel)
        clock = Clock(self.proc, pid, excuses=self.jail.seccomp)
        os.close(writer)
        if channel is not None:
            os.close(channel)
        try:
            end, content = watch.collect(reader, inbox, limit, clock, folder, counter)
            if end == "closed" and not watch.ended_by_itself(pid):
                end = "silent"
            wall_s, run_s = clock.wall_s, clock.run_s()
        finally:
            os.close(reader)
            if counter:
                counter.close()
            status, usage = watch.end(pid)
            if self.world.processes:
                watch.end_all()
        armed, frame = content[:1] == protocol.ARMED, content[1 + protocol.LENGTH_BYTES :]
        header = {
            "end": end if armed or end != "frame" else "closed",
            "armed": armed,
            "reason": "" if armed else bytes(content[1:2000]).decode(errors="replace"),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) and end == "closed" else 0,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": wall_s,
            "run_s": run_s,
            "peak_mb": max(0, (usage.ru_maxrss << 10) - self.base_resident) / limits.MEBIBYTE,
        }
        return header, frame if end == "frame" else frame[:0]


def _let_it_be_killed_first(proc: int) -> None:
    """Where memory runs out, the kernel shall end this process, and neither the zygote nor the worker."""
    with contextlib.suppress(OSError):  # a /proc that hides or is read-only
        descriptor = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        os.write(descriptor, b"1000")
        os.close(descriptor)


def serve(zygote: Zygote, inbox: int, outbox: int) -> None:
    """Answer requests until the worker is gone."""
    with contextlib.suppress(EOFError, watch.WorkerGone, BrokenPipeError):
        while True:
            _serve_one(zygote, inbox, outbox)


def _serve_one(zygote: Zygote, inbox: int, outbox: int) -> None:
    """Request and answer are gone when this returns: the next job is a fork of this process, and sees its
    memory.
    """
    size = protocol.length(protocol.read_exactly(inbox, protocol.LENGTH_BYTES))
    header, body = protocol.unpack(protocol.read_exactly(inbox, size))
    work = functools.partial(zygote.work, header["order"], body)
    try:
        answer = zygote.job(limits.Limits(**header["limits"]), work, inbox)
    except NotRemoved as error:
        protocol.write_frame(outbox, *error.answer)  # the answer counts, and the zygote ends
        raise
    protocol.write_frame(outbox, *answer)


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
    world = namespaces.enter() if asked.inside is None else bubblewrap.arrive(asked.users)
    sys.path[:] = paths.packages()
    base = world.base or asked.folder
    if not world.base:
        os.mkdir(base)
    try:
        found = probe.probe(world, base, limits.own_user())
        hello = protocol.pack({"maker": world.maker, "layers": found.layers})
        if asked.trade == "probe":
            protocol.write_all(outbox, hello)
            return
        work = TRADES[asked.trade](base)
        world.forbid_ipc(proc)
        world.seal()
        gc.collect()
        gc.freeze()
        page = os.sysconf("SC_PAGE_SIZE")
        size, resident = (int(pages) * page for pages in read_at(proc, "self/statm").split()[:2])
        zygote = Zygote(found.jail, world, found.layers["files"], work, base, size, resident, proc)
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
    parser.add_argument(bubblewrap.USERS, action="store_true", help="inside, in a user namespace")
    parser.add_argument(bubblewrap.INSIDE, type=int, help="already inside of it; a descriptor of /proc")
    return parser.parse_args()


if __name__ == "__main__":
    main()
