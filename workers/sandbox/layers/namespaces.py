"""Outer layer by namespaces, where bubblewrap is not used: no network, no other processes, and a root that
holds only what jobs need.

Entered once, before anything heavy is imported; children inherit it.

Invariants: nothing mounted here is visible outside, and the kernel removes it when the zygote ends; on a
machine without namespaces (some containers) `enter` returns `OuterLayer("none")`, and the other layers still
apply.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

from workers.sandbox.layers import kernel, paths
from workers.sandbox.layers.outer import OuterLayer

logger = logging.getLogger(__name__)
# The new root is built here: it exists on every machine, and jobs need nothing below it.
_SITE = "/sys"
_FLAGS = kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWPID


def enter() -> OuterLayer:
    """Enter new namespaces, through a user namespace unless this is root, and build the private root."""
    users = _unshare()
    if users is None:
        return OuterLayer("none")
    _become_first()
    try:
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        _build(_SITE)
    except OSError as error:
        logger.warning("no private root: %s", error)
        return OuterLayer("namespaces", network=True, processes=True, users=users)
    return OuterLayer("namespaces", network=True, processes=True, users=users, base="/", mounts=True)


def _become_first() -> None:
    """Continue as the first process of the new process namespace. When it ends, the kernel kills all others
    in it.

    The original process waits for it and exits with its status.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(abs(os.waitstatus_to_exitcode(status)))
    kernel.prctl("parent death signal", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _unshare() -> bool | None:
    """Enter new namespaces.

    Returns whether a user namespace was needed; None where there are no namespaces.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            kernel.unshare(_FLAGS)
            return False
        except OSError:  # root of a container without CAP_SYS_ADMIN
            pass
    try:
        kernel.unshare(kernel.NEWUSER | _FLAGS)
    except OSError as error:
        logger.warning("no namespaces: %s", error)
        return None
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="utf-8")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="utf-8")
    except OSError as error:  # the namespaces hold, but nothing can be mounted in them
        logger.warning("user namespace without a mapping: %s", error)
    return True


def _build(site: str) -> None:
    """Build a tmpfs with read-only mounts of the readable paths and the harmless devices, and make it `/`."""
    sources = paths.readable()
    kernel.mount("tmpfs", site, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=32m")
    try:
        for source in [*sources, *(device for device in paths.DEVICES if os.path.exists(device))]:
            target = site + source
            if os.path.isdir(source):
                os.makedirs(target, exist_ok=True)
            else:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                Path(target).touch()
            kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
            if source not in paths.DEVICES:
                kernel.make_read_only(target)
        os.chdir(site)
        kernel.pivot_root_here()
    except OSError:
        os.chdir("/")
        kernel.unmount(site)
        raise
