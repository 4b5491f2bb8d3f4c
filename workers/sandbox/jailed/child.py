"""The forked child: enter the jail, do the job, return its result in one frame.

Invariants:
- no untrusted byte is read before every layer is active and the child has reported that (`protocol.ARMED`);
- standard input and output are /dev/null, so printing cannot reach the frame;
- the environment is empty;
- the process always ends here and never returns into the zygote.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from workers.sandbox import protocol
from workers.sandbox.layers import creations, kernel, landlock, limits, seccomp


class Report(NamedTuple):
    """The result of a job: the header of its frame, and its body in `pieces` of `size` bytes in total."""

    header: dict[str, Any]
    size: int = 0
    pieces: Iterable[bytes] = ()


@dataclass(frozen=True)
class Jail:
    """The layers that a child enters, as found by the zygote's probe.

    `user`: the user id it takes (None: the zygote's). `threads`: it may start threads, because the kernel
    counts them separately from other processes'. `readable`, `devices`: the paths it may use.
    """

    landlock: bool
    seccomp: bool
    user: int | None
    threads: bool
    readable: tuple[str, ...]
    devices: tuple[str, ...]


def confine(
    jail: Jail, limit: limits.Limits, base_bytes: int, folder: str | None, channel: int, parent: int
) -> None:
    """Enter every layer of the jail with this process.

    `base_bytes`: address space of the warm libraries. `folder`: where it may write; None: nowhere. `channel`:
    the one descriptor that stays open. `parent`: the zygote's process id. Raises `OSError` when a layer
    fails.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    kernel.close_all_but(channel)
    os.environ.clear()
    os.umask(0o077)
    os.chdir(folder or "/")
    tempfile.tempdir = folder  # a library may have looked for /tmp before the fork
    limits.drop_privileges(jail.user, parent)
    if jail.landlock:
        landlock.restrict(jail.readable, jail.devices, folder)
    # Without seccomp a task may be a process, with memory and CPU of its own.
    limits.apply(limit, base_bytes, limits.TASKS if jail.seccomp else 1)
    if jail.seccomp:
        if folder is None:
            creations.forbid()
        seccomp.restrict(threads=jail.threads)


def run(
    jail: Jail,
    limit: limits.Limits,
    base_bytes: int,
    folder: str | None,
    channel: int,
    parent: int,
    work: Callable[[], Report],
    counted: int | None,
) -> NoReturn:
    """Run the child from its fork to its exit.

    `counted`: the channel for `creations.submit`, None for no counting.
    """
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            if counted is not None:
                creations.submit(counted)
            confine(jail, limit, base_bytes, folder, channel, parent)
        except Exception as error:  # noqa: BLE001 - any failure means that the jail is not active
            protocol.write_all(channel, protocol.UNARMED + str(error).encode())
        else:
            protocol.write_all(channel, protocol.ARMED)
            report = work()
            protocol.write_all(channel, protocol.head(report.header, report.size))
            for piece in report.pieces:
                protocol.write_all(channel, piece)
            status = 0
    finally:
        os._exit(status)
