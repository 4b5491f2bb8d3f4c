"""The folder of one job: a small tmpfs where the zygote can mount, else a folder on disk with counted
creations.

Invariants:
- it is new for each job, and removed afterwards whatever the code left in it;
- the kernel limits its bytes and entries (`creations` for a folder on disk; checking its size only ends a job
  sooner);
- names that the code chose do not affect what is removed, or how;
- in a private root without mounts, everything that jobs can write to is emptied.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator

from workers.sandbox.layers import kernel
from workers.sandbox.layers.limits import MAX_ENTRIES, MEBIBYTE
from workers.sandbox.layers.outer import JOB, OuterLayer

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """`path`: where the child works, between `make` and `remove`. `megabytes`: most bytes in it, in MiB."""

    def __init__(self, base: str, outer: OuterLayer, megabytes: int):
        self._base, self._mounted, self._megabytes = base, outer.mounts, megabytes
        self._private = bool(outer.base)
        self.path = ""

    def make(self, user: int | None) -> None:
        """Create it for `user`, the child's (None: this process's)."""
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
        """Whether a folder on disk exceeds its limits (a tmpfs cannot), or cannot be read any more.

        Reads no more entries than are allowed.
        """
        if self._mounted:
            return False
        size, entries = 0, 0
        try:
            for status in _statuses(self.path):
                entries += 1
                size += max(status.st_blocks * 512, status.st_size)
                if entries > MAX_ENTRIES or size > self._megabytes * MEBIBYTE:
                    return True
        except OSError:  # without Landlock, code may remove its own folder
            return True
        return False

    def remove(self) -> None:
        """Remove it. All processes of the job must be dead."""
        if self._mounted:
            kernel.unmount(self.path)
        elif self._private:
            empty(self._base)
        else:
            remove_tree(self.path)


def _statuses(top: str) -> Iterator[os.stat_result]:
    """The status of everything below `top`, at any depth, while a job may change it."""
    pending = [os.open(top, _FOLDER)]
    try:
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    for entry in listing:
                        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # removed meanwhile
                            status = entry.stat(follow_symlinks=False)
                            if stat.S_ISDIR(status.st_mode):
                                pending.append(_enter(folder, entry.name))
                            yield status
            finally:
                os.close(folder)
    finally:
        for folder in pending:
            os.close(folder)


def _enter(folder: int, name: str) -> int:
    """Open a subfolder, even one without permissions (this user owns it)."""
    with contextlib.suppress(PermissionError):
        return os.open(name, _FOLDER, dir_fd=folder)
    os.chmod(name, 0o700, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def remove_tree(top: str) -> None:
    """Remove a tree of any depth."""
    os.chmod(top, 0o700)
    empty(top)
    os.rmdir(top)


def empty(top: str) -> None:
    """Remove everything below `top`, without recursion and without a path longer than one name.

    The content of a subfolder is moved up under random names, then the subfolder is removed.
    """
    folder = os.open(top, _FOLDER)
    try:
        while names := os.listdir(folder):
            for name in names:
                if _is_folder(folder, name):
                    _dissolve(folder, name)
                else:
                    os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _dissolve(folder: int, name: str) -> None:
    """Remove the subfolder `name` and its files, and move the folders in it to its parent."""
    os.chmod(name, 0o700, dir_fd=folder)
    inside = os.open(name, _FOLDER, dir_fd=folder)
    try:
        for inner in os.listdir(inside):
            if _is_folder(inside, inner):
                os.chmod(inner, 0o700, dir_fd=inside)  # a folder without write permission cannot be moved
                os.rename(inner, secrets.token_hex(16), src_dir_fd=inside, dst_dir_fd=folder)
            else:
                os.unlink(inner, dir_fd=inside)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=folder)


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
