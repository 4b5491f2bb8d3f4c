"""The outer layer of the jail around the zygote: which namespaces and root it has, and what made them.

Invariant: after `seal`, only the folder of the running job can be written to, and that is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Literal

from workers.sandbox.layers import kernel

JOB = "job"  # below the base; job folders are mounted there
_ROOT = "root"  # below the base; a second mount of the root
_IPC = {"shmmni": "0", "msgmni": "0", "sem": "0 0 0 0"}  # limits of an IPC namespace
Maker = Literal["bubblewrap", "namespaces", "none"]


@dataclass(frozen=True)
class OuterLayer:
    """What the outer layer provides.

    `network`: no network interface. `processes`: a process namespace with the zygote as first process, so
    that all others die with it and none outside is visible. `users`: a user namespace. `base`: the writable
    folder of the private root, empty without one. `mounts`: the zygote can mount there.
    """

    maker: Maker
    network: bool = False
    processes: bool = False
    users: bool = False
    base: str = ""
    mounts: bool = False

    def seal(self) -> None:
        """Make the whole root read-only for good.

        Each job gets a mount; without mounts, the base is emptied after it.

        The root is changed to a mount inside the root: the kernel gives no user namespace, and so no file
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
        """Forbid shared memory, semaphores and message queues: no process limit counts them, and they outlive
        it.

        `proc`: a descriptor of /proc. Does nothing without an IPC namespace.
        """
        if self.maker == "none":
            return
        for name, value in _IPC.items():
            with contextlib.suppress(OSError):  # a read-only /proc; seccomp refuses these calls too
                descriptor = os.open(f"sys/kernel/{name}", os.O_WRONLY, dir_fd=proc)
                try:
                    os.write(descriptor, value.encode())
                finally:
                    os.close(descriptor)
