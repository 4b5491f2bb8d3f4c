"""Writes a file whole or not at all, in a local folder or on any other fsspec file system.

Invariants: a reader sees the old bytes or the new ones, never a part; in a local folder bytes and name are on
the disk when `write` returns; what a killed writer leaves ends in `.part`. On an object store (S3 and its
like) a put is atomic by itself, and a move is a copy and a delete: there the file is put in its place.
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
    """Write `data` to `target`, in place of what is there. Raises `OSError` (a full disk, no permission,
    no answer), and what else a file system has of its own.
    """
    part = f"{target}.{uuid.uuid4().hex}{PART}"
    if isinstance(fs, LocalFileSystem):
        _write_durably(Path(target), Path(part), data)
    elif type(fs).mv is AbstractFileSystem.mv:
        call(fs, "pipe_file", target, data)
    else:  # a file server with a rename of its own (SFTP, SMB)
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(part, data)
        fs.mv(part, target)


def _write_durably(target: Path, part: Path, data: bytes) -> None:
    folder = target.parent
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:  # a full disk must not be filled further by what nobody will ever read
        part.unlink(missing_ok=True)
        raise
    for one in (folder, folder.parent, folder.parent.parent) if new else (folder,):
        sync_folder(one)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse, and have the names already
            os.fsync(opened)
    finally:
        os.close(opened)
