"""The zygote: one warm, single-threaded process that forks a jailed child per job.

`python -m workers.sandbox.jailed.zygote FOLDER KIND [--bubblewrap PROGRAM]`. FOLDER is created where there is
no private root; KIND is one of `JOB_KINDS`, or `probe`. It sends frames on its standard output: first a
message that says which layers of the jail are active (for `probe` that is all), then one answer per request
on its standard input.

Invariants:
- one job at a time, and the next one finds nothing of it in the memory that it is forked from;
- it has one thread, so that it may fork;
- it ends when its input closes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from workers.sandbox import protocol
from workers.sandbox.jailed import child, decoding, drawing, probe, watch
from workers.sandbox.jailed.job import FolderNotRemoved, Jobs
from workers.sandbox.jailed.watch import read_at
from workers.sandbox.layers import bubblewrap, limits, namespaces, paths
from workers.sandbox.layers.folder import remove_tree

Work = Callable[
    [dict[str, Any], memoryview], child.Report
]  # runs a job, given the options and body of a request
# For each kind of job: import its libraries (they may write below the folder) and return its work.
JOB_KINDS: dict[str, Callable[[str], Work]] = {"charts": drawing.warm, "images": decoding.warm}


def serve(jobs: Jobs, work: Work, inbox: int, outbox: int) -> None:
    """Answer requests until the worker is gone."""
    with contextlib.suppress(EOFError, watch.WorkerGone, BrokenPipeError):
        while True:
            _serve_one(jobs, work, inbox, outbox)


def _serve_one(jobs: Jobs, work: Work, inbox: int, outbox: int) -> None:
    """Answer one request. Its memory is freed on return, because the next job is a fork of this process."""
    size = protocol.length(protocol.read_exactly(inbox, protocol.LENGTH_BYTES))
    header, body = protocol.unpack(protocol.read_exactly(inbox, size))
    job = functools.partial(work, header["options"], body)
    try:
        answer = jobs.run(limits.Limits(**header["limits"]), job, inbox)
    except FolderNotRemoved as error:
        protocol.write_frame(outbox, *error.answer)  # the answer is valid, and the zygote ends
        raise
    protocol.write_frame(outbox, *answer)


def main() -> None:
    """Enter the outer layer, try all layers, import the libraries, send the first message, serve."""
    options = _arguments()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if options.inside is None else options.inside
    if options.bubblewrap and options.inside is None:
        bubblewrap.enter(options.bubblewrap, sys.argv[1:], proc)
    inbox, outbox = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what a library prints while it is imported must not look like a frame
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C in a terminal
    outer = namespaces.enter() if options.inside is None else bubblewrap.inside(options.users)
    sys.path[:] = paths.packages()
    base = outer.base or options.folder
    if not outer.base:
        os.mkdir(base)
    try:
        found = probe.probe(outer, base, limits.own_user())
        hello = protocol.pack({"maker": outer.maker, "layers": found.layers})
        if options.kind == "probe":
            protocol.write_all(outbox, hello)
            return
        work = JOB_KINDS[options.kind](base)
        outer.forbid_ipc(proc)
        outer.seal()
        gc.collect()
        gc.freeze()
        page = os.sysconf("SC_PAGE_SIZE")
        size, resident = (int(pages) * page for pages in read_at(proc, "self/statm").split()[:2])
        jobs = Jobs(found.jail, outer, found.layers["files"], base, size, resident, proc)
        protocol.write_all(outbox, hello)
        serve(jobs, work, inbox, outbox)
    finally:
        if not outer.base:
            with contextlib.suppress(OSError):  # the worker may be removing it too
                remove_tree(base)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("kind", choices=(*JOB_KINDS, "probe"))
    parser.add_argument("--bubblewrap", help="path of the program, where it is installed")
    parser.add_argument(bubblewrap.USERS, action="store_true", help="inside bubblewrap, in a user namespace")
    parser.add_argument(bubblewrap.INSIDE, type=int, help="already inside bubblewrap; a descriptor of /proc")
    return parser.parse_args()


if __name__ == "__main__":
    main()
