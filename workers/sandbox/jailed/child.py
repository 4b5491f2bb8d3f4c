"""What runs in the forked child: put on the jail, do the job, hand back its result in one frame.

Invariants: not a byte of what is untrusted is looked at before every layer holds and the child has said so;
standard input and output are /dev/null, so printing cannot reach the frame; the environment is empty; the
process always ends here and never returns into the zygote.
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
    """What a job ends in: the header of its frame, and its body in pieces of so many bytes in all."""

    header: dict[str, Any]
    size: int = 0
    pieces: Iterable[bytes] = ()


@dataclass(frozen=True)
class Jail:
    """Which layers a child puts on, found by the zygote's probe, the user it becomes (None: it stays who the
    zygote is), and the paths it may read. `threads`: it may start some, since the kernel counts them apart
    from everybody else's.
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
    """Put every layer on this process, which works in `folder`, or in none. Raises `OSError` when one that
    the probe found does not hold.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    kernel.close_all_but(channel)
    os.environ.clear()
    os.umask(0o077)
    os.chdir(folder or "/")
    tempfile.tempdir = folder  # a library may have made it look for /tmp before the fork
    limits.drop_privileges(jail.user, parent)
    if jail.landlock:
        landlock.restrict(jail.readable, jail.devices, folder)
    # Without a filter a task may be a process, with memory and CPU of its own.
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
    """The child's whole life. `counted`: the channel for `creations.submit`; None: nothing is counted."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            if counted is not None:
                creations.submit(counted)
            confine(jail, limit, base_bytes, folder, channel, parent)
        except Exception as error:  # noqa: BLE001 - whatever it is, the jail does not hold
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
