"""The folder of one job: a small tmpfs where the zygote can mount one, else a watched folder.

Invariants: fresh for each job, gone afterwards whatever the code left in it, and bounded in bytes and in
entries; of a private root without mounts, everything that jobs could write to is emptied.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

from workers.sandbox import kernel
from workers.sandbox.limits import MEBIBYTE
from workers.sandbox.world import JOB, World

MAX_ENTRIES = 512


class Folder:
    """`path` is where the child works. Open it with `make`, close it with `remove`."""

    def __init__(self, base: str, world: World, megabytes: int):
        self._base, self._mounted, self._megabytes = base, world.mounts, megabytes
        self._private = bool(world.base)
        self.path = ""

    def make(self, user: int | None) -> None:
        """Create it, owned by who the child will be, if that is another."""
        owner, group = (os.geteuid(), os.getegid()) if user is None else (user, user)
        if self._mounted:
            self.path = os.path.join(self._base, JOB)
            os.makedirs(self.path, exist_ok=True)
            options = f"mode=0700,uid={owner},gid={group},size={self._megabytes}m,nr_inodes={MAX_ENTRIES}"
            kernel.mount(
                "tmpfs", self.path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options
            )
        else:
            self.path = tempfile.mkdtemp(prefix="job-", dir=self._base)
            try:
                os.chown(self.path, owner, group)
            except OSError:
                os.rmdir(self.path)
                raise

    def full(self) -> bool:
        """Whether a folder on disk has outgrown its limits (a tmpfs cannot)."""
        if self._mounted:
            return False
        size, entries, pending = 0, 0, [self.path]
        while pending:
            with contextlib.suppress(OSError), os.scandir(pending.pop()) as listing:
                for entry in listing:
                    entries += 1
                    with contextlib.suppress(OSError):  # gone since it was listed
                        status = entry.stat(follow_symlinks=False)
                        size += max(status.st_blocks * 512, status.st_size)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if entries > MAX_ENTRIES or size > self._megabytes * MEBIBYTE:
                        return True
        return False

    def remove(self) -> None:
        """Take it away. All processes of the job must be dead."""
        if self._mounted:
            kernel.unmount(self.path)
        elif self._private:
            empty(self._base)
        else:
            remove_tree(self.path)


def remove_tree(top: str) -> None:
    """Remove a tree of any depth."""
    os.chmod(top, 0o700)
    empty(top)
    os.rmdir(top)


def empty(top: str) -> None:
    """Remove all that lies below, without recursion: what lies in a subfolder is moved up, then the subfolder
    goes.
    """
    moved = 0
    while entries := list(os.scandir(top)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for name in os.listdir(entry.path):
                inner = f"{entry.path}/{name}"
                if os.path.isdir(inner) and not os.path.islink(inner):
                    os.chmod(inner, 0o700)  # a folder that may not be written cannot be moved
                moved += 1
                os.rename(inner, f"{top}/moved-{moved}-{os.getpid()}")
            os.rmdir(entry.path)
