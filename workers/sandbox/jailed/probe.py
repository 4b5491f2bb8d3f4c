"""Find the layers of the jail that work on this machine, by trying them in forked children.

Invariant: a layer is reported as active only if what it must refuse was tried under that layer alone, and was
refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from workers.sandbox.jailed import child
from workers.sandbox.layers import creations, kernel, limits, paths
from workers.sandbox.layers.creations import CreationCounter
from workers.sandbox.layers.folder import Folder
from workers.sandbox.layers.outer import OuterLayer

_LIMITS = limits.Limits(cpu_s=5, run_s=10, wall_s=10, memory_mb=4096, output_mb=1, files_mb=1)
_HELD = b"held"
_STACK_BYTES = 64 << 10
_COUNTS_PER_NAMESPACE = (5, 14)  # since then Linux counts the tasks of a user in each user namespace


@dataclass(frozen=True)
class Found:
    """The layers by name, and the jail that children enter because of them."""

    layers: dict[str, bool]
    jail: child.Jail


def probe(outer: OuterLayer, base: str, own_user: int) -> Found:
    """Try each layer, then choose the jail of the children: root becomes `own_user`, or nobody, where it can.

    `base`: a folder for the trials. Call it while the process has one thread, because it forks.
    """
    bare = child.Jail(False, False, None, False, tuple(paths.readable()), paths.DEVICES)

    def holds(
        jail: child.Jail, check: Callable[[child.Jail], bool], counter: CreationCounter | None = None
    ) -> bool:
        return _holds(jail, check, Folder(base, outer, _LIMITS.files_mb), counter)

    users = (own_user, limits.NOBODY)
    able = (user for user in users if holds(replace(bare, user=user), _is_that_user_and_can_read))
    user = next(able, None) if os.geteuid() == 0 else None
    seccomp = holds(replace(bare, seccomp=True), _calls_are_refused)
    counted_apart = seccomp and (
        user == own_user or (outer.users and kernel.VERSION >= _COUNTS_PER_NAMESPACE)
    )
    jail = replace(
        bare,
        landlock=holds(replace(bare, landlock=True), _files_are_refused),
        seccomp=seccomp,
        user=user,
        threads=counted_apart
        and holds(replace(bare, user=user, seccomp=True, threads=True), _tasks_are_counted),
    )
    counted = seccomp and (jail.landlock or bool(outer.base))  # else a job could create files elsewhere
    layers = {
        "landlock": jail.landlock,
        "seccomp": jail.seccomp,
        "netns": outer.network and holds(bare, _network_is_unreachable),
        "private_root": bool(outer.base) and not os.path.exists("/proc"),
        "processes": outer.processes and holds(bare, _nobody_else_is_there),
        "unprivileged": user is not None or os.geteuid() != 0,
        "files": outer.mounts
        or (counted and holds(replace(bare, seccomp=True), _creations_are_counted, CreationCounter(1))),
    }
    return Found(layers, jail)


def _holds(
    jail: child.Jail, check: Callable[[child.Jail], bool], folder: Folder, counter: CreationCounter | None
) -> bool:
    """Whether `check` is true in a child in `jail`, under `counter` if there is one."""
    channel = counter.channel if counter else None
    try:
        folder.make(jail.user)
    except OSError:  # a user namespace that does not know this user
        return False
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            if channel is not None:
                creations.submit(channel)
            child.confine(jail, _LIMITS, 0, folder.path, writer, parent)
            if check(jail):
                os.write(writer, _HELD)
        finally:
            os._exit(0)
    os.close(writer)
    if channel is not None:
        os.close(channel)
    answer = _answer(reader, counter)
    os.close(reader)
    if counter:
        counter.close()
    os.waitpid(pid, 0)
    folder.remove()
    return answer == _HELD


def _answer(reader: int, counter: CreationCounter | None) -> bytes:
    """Read what the child writes, if anything, while `counter` answers its calls."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if counter:
        counter.watch(poll)
    while True:
        for descriptor, event in poll.poll():
            if not (counter and counter.serve(descriptor, event)):
                return os.read(reader, len(_HELD))


def _refused(attempt: Callable[[], object], codes: tuple[int, ...] = (errno.EPERM, errno.EACCES)) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno in codes
    return False


def _files_are_refused(jail: child.Jail) -> bool:
    """The root cannot be listed and the parent folder not written to, but the own folder can."""
    with open("own", "w", encoding="utf-8") as own:
        own.write("x")
    return _refused(lambda: os.listdir("/")) and _refused(
        lambda: open("../own", "w", encoding="utf-8").close()
    )


def _calls_are_refused(jail: child.Jail) -> bool:
    """No socket, no process, no program."""

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    return (
        _refused(socket.socket)
        and _refused(fork)
        and _refused(lambda: os.execv("/nonexistent", ["nonexistent"]))
    )


def _is_that_user_and_can_read(jail: child.Jail) -> bool:
    """The process cannot become root again, can read Python's files, and can write to its own folder."""
    with open("own", "w", encoding="utf-8") as own:
        own.write("x")
    gone = _refused(lambda: os.setuid(0)) and os.getresuid() == (jail.user,) * 3
    return gone and all(os.access(path, os.R_OK) for path in jail.readable)


def _nobody_else_is_there(jail: child.Jail) -> bool:
    """The only other process is the first of the namespace, which nothing inside can kill."""
    return os.getppid() == 1 and _refused(lambda: os.kill(-1, 0), (errno.ESRCH,))


def _network_is_unreachable(jail: child.Jail) -> bool:
    """No route to an outside address (192.0.2.0/24 is reserved for documentation)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        return _refused(lambda: outward.connect(("192.0.2.1", 9)), (errno.ENETUNREACH,))


def _tasks_are_counted(jail: child.Jail) -> bool:
    """Threads can be started up to the limit only. For root no limit applies."""
    threading.stack_size(_STACK_BYTES)
    started = 0
    with contextlib.suppress(RuntimeError):
        while started < 2 * limits.TASKS:
            threading.Thread(target=time.sleep, args=(_LIMITS.wall_s,), daemon=True).start()
            started += 1
    return 0 < started < limits.TASKS


def _creations_are_counted(jail: child.Jail) -> bool:
    """One file can be created and written again, but no second one."""
    with open("own", "w", encoding="utf-8") as own:
        own.write("x")
    with open("own", "r+", encoding="utf-8") as again:
        again.write("y")
    return _refused(lambda: open("another", "w", encoding="utf-8").close(), (errno.EDQUOT,)) and _refused(
        lambda: os.mkdir("folder"), (errno.EDQUOT,)
    )
