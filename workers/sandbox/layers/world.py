"""The zygote's own world, the jail's outer layer: what of the machine it has left, and who made it so.

Invariant: once it is sealed, nothing in it can be written to but the folder of the job that runs, which is
gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Literal

from workers.sandbox.layers import kernel

JOB = "job"  # below the base, where jobs' folders are mounted
_ROOT = "root"  # below the base, the whole root once more
_IPC = {"shmmni": "0", "msgmni": "0", "sem": "0 0 0 0"}  # of a namespace: how many there may be
Maker = Literal["bubblewrap", "namespaces", "none"]


@dataclass(frozen=True)
class World:
    """`network`: cut off from every interface; `processes`: the zygote is the first of its own, so that all
    others die with it, and nobody outside is visible; `users`: a user namespace of its own; `base`: the
    folder below which a private root can be written, empty without a private root; `mounts`: the zygote can
    mount there.
    """

    maker: Maker
    network: bool = False
    processes: bool = False
    users: bool = False
    base: str = ""
    mounts: bool = False

    def seal(self) -> None:
        """Make the whole root read-only, for good: jobs get a mount each. Without mounts there is only the
        base, which is emptied after each job.

        The root then lies within the root, because the kernel gives no user namespace, and with it no file
        system of any size, to a process whose root is not that of its mounts.
        """
        if not self.mounts:
            return
        root = os.path.join(self.base, _ROOT)
        for folder in (os.path.join(self.base, JOB), root):
            os.makedirs(folder, exist_ok=True)
        kernel.mount("/", root, None, kernel.MS_BIND | kernel.MS_REC)
        kernel.make_read_only(self.base)
        os.chroot(root)
        os.chdir("/")

    def forbid_ipc(self, proc: int) -> None:
        """Allow no shared memory, semaphores or message queues in a namespace of its own: no limit of a
        process counts them, and they outlive it. `proc` is a descriptor of /proc.
        """
        if self.maker == "none":
            return
        for name, value in _IPC.items():
            with contextlib.suppress(OSError):  # a read-only /proc; the filter refuses these calls too
                descriptor = os.open(f"sys/kernel/{name}", os.O_WRONLY, dir_fd=proc)
                try:
                    os.write(descriptor, value.encode())
                finally:
                    os.close(descriptor)
