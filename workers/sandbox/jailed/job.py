"""Run one job in a forked child: give it a folder, watch it, kill it, and clean up.

Invariants:
- when `Jobs.run` returns, the job's processes are dead and its folder is removed;
- the time of the clean-up counts as the job's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.sandbox import protocol
from workers.sandbox.jailed import child, watch
from workers.sandbox.jailed.watch import Clock
from workers.sandbox.layers import limits
from workers.sandbox.layers.creations import CreationCounter
from workers.sandbox.layers.folder import Folder
from workers.sandbox.layers.outer import OuterLayer

Answer = tuple[dict[str, Any], memoryview]  # the fields of a `JobExit`, and the child's frame, if it sent one


class FolderNotRemoved(Exception):
    """The folder of a job could not be removed; no other job may run. `answer`: the answer of that job."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("a job's folder could not be removed")
        self.answer = answer


@dataclass(frozen=True)
class Jobs:
    """Runs jobs, one at a time.

    `files`: jobs get a folder of limited size. `base`: where their folders are made. `base_bytes` and
    `base_resident`: address space and memory of the warm libraries, in bytes. `proc`: a descriptor of the
    machine's /proc, since the private root has none; no child keeps it.
    """

    jail: child.Jail
    outer: OuterLayer
    files: bool
    base: str
    base_bytes: int
    base_resident: int
    proc: int

    def run(self, limit: limits.Limits, work: Callable[[], child.Report], inbox: int) -> Answer:
        """Run one job to its end.

        `inbox`: the descriptor that closes when the worker is gone. Raises `FolderNotRemoved`, or
        `watch.WorkerGone`.
        """
        if not (limit.files_mb and self.files):
            return self._watch(limit, work, inbox, None)
        folder = Folder(self.base, self.outer, limit.files_mb)
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
            raise FolderNotRemoved(answer) from error
        finally:
            answer[0]["run_s"] += time.monotonic() - began
        return answer

    def _watch(
        self, limit: limits.Limits, work: Callable[[], child.Report], inbox: int, folder: Folder | None
    ) -> Answer:
        reader, writer = os.pipe()
        protocol.widen(writer)
        counter = None if folder is None or self.outer.mounts else CreationCounter(limits.MAX_ENTRIES)
        channel = counter.channel if counter else None
        path, parent = folder.path if folder else None, os.getpid()
        pid = os.fork()
        if pid == 0:
            _prefer_for_oom_kill(self.proc)
            child.run(self.jail, limit, self.base_bytes, path, writer, parent, work, channel)
        clock = Clock(self.proc, pid, count_waiting=self.jail.seccomp)
        os.close(writer)
        if channel is not None:
            os.close(channel)
        try:
            end, content = watch.collect(reader, inbox, limit, clock, folder, counter)
            if end == "closed" and not watch.exited(pid):
                end = "silent"
            wall_s, run_s = clock.wall_s, clock.run_s()
        finally:
            os.close(reader)
            if counter:
                counter.close()
            status, usage = watch.kill(pid)
            if self.outer.processes:
                watch.kill_all()
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


def _prefer_for_oom_kill(proc: int) -> None:
    """When memory runs out, let the kernel kill this process before the zygote and the worker."""
    with contextlib.suppress(OSError):  # a /proc that hides or is read-only
        descriptor = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        os.write(descriptor, b"1000")
        os.close(descriptor)
