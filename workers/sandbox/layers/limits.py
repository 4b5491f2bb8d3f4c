"""Resource limits of a job, and dropping the privileges of a jailed child.

Invariants: limits are hard (a child cannot raise them); once `drop_privileges` returns, the process has no
capability and cannot regain one.
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
_USERS = range(0x70000000, 0x7FFE0000)  # unused range (https://systemd.io/UIDS-GIDS)
MEBIBYTE = 1 << 20
MAX_ENTRIES = 128  # files and folders: at once on a tmpfs, in total where creations are counted
_OPEN_FILES = 32
TASKS = 64  # threads, including the first; without seccomp, processes too


@dataclass(frozen=True)
class Limits:
    """Limits of one job.

    `cpu_s`: seconds of CPU. `wall_s`: wall-clock seconds; `run_s`: without those in which other processes
    kept it from a CPU. `memory_mb`: MiB beyond the zygote's own. `output_mb`: MiB of its frame. `files_mb`:
    MiB of files (0: it has no folder, and can write nowhere).
    """

    cpu_s: float
    run_s: float
    wall_s: float
    memory_mb: int
    output_mb: int
    files_mb: int


def apply(limits: Limits, base_bytes: int, tasks: int) -> None:
    """Set the resource limits of this process.

    `base_bytes`: address space of the warm libraries, which is not counted. `tasks`: most tasks of its user
    at once.
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
    """A random user id for the jobs of one zygote.

    The kernel counts tasks by user, and lets processes of one user signal each other.
    """
    return secrets.choice(_USERS)


def drop_privileges(user: int | None, parent: int) -> None:
    """Become `user` (if any), drop all capabilities for good, and die with the zygote `parent`."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.drop_capabilities()
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl("not dumpable", kernel.PR_SET_DUMPABLE, 0)  # else writing a core dump delays its exit
    kernel.prctl("parent death signal", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
