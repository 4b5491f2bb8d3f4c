"""What one job may use, and how a jailed child gives up what it must not have.

Invariants: limits are hard (a child cannot raise them); once `drop_privileges` returns, no capability is
left and none can be regained.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import signal
from dataclasses import dataclass

from workers.sandbox.layers import kernel

NOBODY = 65534
_USERS = range(0x70000000, 0x7FFE0000)  # which nobody else uses (https://systemd.io/UIDS-GIDS)
MEBIBYTE = 1 << 20
MAX_ENTRIES = 128  # files and folders: at once on a tmpfs, in all where their creation is counted
_OPEN_FILES = 32
TASKS = 64  # threads, the first included; and processes, where no filter of system calls refuses them


@dataclass(frozen=True)
class Limits:
    """Of one job: seconds of CPU; seconds on the clock without those in which others kept it from a CPU
    (`run_s`), and with them (`wall_s`); MiB of memory beyond the zygote's own, of what it hands back, and of
    files (0: it has no folder, and can write nowhere).
    """

    cpu_s: float
    run_s: float
    wall_s: float
    memory_mb: int
    output_mb: int
    files_mb: int


def apply(limits: Limits, base_bytes: int, tasks: int) -> None:
    """Set the resource limits of this process; `base_bytes` of address space are the warm libraries' and not
    counted; `tasks` of its user may live at once.
    """
    cpu_s = math.ceil(limits.cpu_s)
    files = limits.files_mb * MEBIBYTE
    for which, soft, hard in (
        (resource.RLIMIT_AS, base_bytes + limits.memory_mb * MEBIBYTE, None),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_FSIZE, files, None),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, None),
        (resource.RLIMIT_NPROC, tasks, None),
        (resource.RLIMIT_CORE, 0, None),
        (resource.RLIMIT_MEMLOCK, 0, None),
        (resource.RLIMIT_MSGQUEUE, 0, None),
    ):
        ceiling = resource.getrlimit(which)[1]
        wanted = soft if hard is None else hard
        top = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
        resource.setrlimit(which, (min(soft, top), top))


def own_user() -> int:
    """For the jobs of one zygote, drawn by chance: the kernel counts tasks by user, and lets processes of one
    user signal each other.
    """
    return secrets.choice(_USERS)


def drop_privileges(user: int | None, parent: int) -> None:
    """Become `user` (if any), without capabilities, unable to gain any, and die with the zygote `parent`."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.drop_capabilities()
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl("not dumpable", kernel.PR_SET_DUMPABLE, 0)  # else collecting a core dump delays its end
    kernel.prctl("parent death signal", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
