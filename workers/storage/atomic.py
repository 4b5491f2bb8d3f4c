"""Atomic writes of files: in a local folder, or on any fsspec file system.

Invariants:
- A reader sees the old bytes or the new ones, never a part of them.
- After a durable write to a local folder, the bytes and the name are on the disk.
- A writer that is killed leaves at most one file, which ends in `.part`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from workers.storage.timeouts import call

PART = ".part"


def write(fs: Any, target: str, data: bytes) -> None:
    """Write `data` durably to `target` in an fsspec file system, replacing what is there.

    On an object store (S3 and its like) a put is atomic, and a move is a copy and a delete: there the target
    is put directly. Raises `OSError` (full disk, no permission, no answer), and the file system's own errors.
    """
    if isinstance(fs, LocalFileSystem):
        save(Path(target), data, durable=True)
    elif type(fs).mv is AbstractFileSystem.mv:
        call(fs, "pipe_file", target, data)
    else:  # a file server that can rename (SFTP, SMB)
        part = _part_of(target)
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(part, data)
        fs.mv(part, target)


def save(path: Path, data: bytes | str, *, durable: bool = False, mode: int = 0o666) -> None:
    """Write `data` (text as UTF-8) to a local file, replacing what is there. Creates the folder.

    `durable`: return only when the file is on the disk; without it the file may be lost or empty after the
    machine crashes. `mode`: permissions of the file, less the umask. Raises `OSError`.
    """
    folder, part = path.parent, Path(_part_of(str(path)))
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # a full disk must not keep the part
        part.unlink(missing_ok=True)
        raise
    if durable:
        for one in (folder, folder.parent, folder.parent.parent) if new else (folder,):
            sync_folder(one)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse, and have the names already
            os.fsync(opened)
    finally:
        os.close(opened)


def _part_of(target: str) -> str:
    return f"{target}.{uuid.uuid4().hex}{PART}"
