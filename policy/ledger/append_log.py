"""An append-only log of lines, in files of one writer: `<folder>/<name>.jsonl`, then `<name>-2.jsonl` and so
on.

Invariants:
- a line is written by one `write` call, so that a reader sees complete lines even after a kill;
- a line survives a crash of the process at once, and of the machine after `SYNC_S`;
- while the disk is full, lines are kept in memory and written later, in order, and no partial line stays in a
  file;
- no process appends to the file of another, because its last line may be incomplete.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import threading
from collections import deque
from pathlib import Path

logger = logging.getLogger(__name__)
SYNC_S = 2.0
FULL_BYTES = 64 << 20  # size of one file; readers hold one at a time in memory


def _own_file(folder: Path, name: str) -> int:
    """Create a file that no process has used before; process ids repeat after a restart of the machine."""
    for number in itertools.count(1):
        path = folder / (f"{name}.jsonl" if number == 1 else f"{name}-{number}.jsonl")
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
    raise AssertionError("unreachable")


class AppendLog:
    """Thread-safe.

    A thread of its own calls fsync, which may take long, so that no event loop waits for it.
    """

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._name = name
        self._lock = threading.Lock()
        self._file = _own_file(folder, name)
        self._bytes = 0
        self._unwritten: deque[bytes] = deque()
        self._unwritten_bytes = 0
        self._full: list[int] = []  # files to sync and close
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, name="ledger-sync", daemon=True)
        self._syncer.start()

    def append(self, line: bytes) -> None:
        """Append `line`, which ends with a line break. Raises `OSError` once `FULL_BYTES` are unwritten."""
        with self._lock:
            if self._file < 0:
                raise OSError(errno.EBADF, "the log is closed", self._name)
            self._unwritten.append(line)
            self._unwritten_bytes += len(line)
            try:
                self._write()
            except OSError as error:
                if self._unwritten_bytes > FULL_BYTES:
                    self._unwritten_bytes -= len(self._unwritten.pop())
                    raise
                if len(self._unwritten) == 1:
                    logger.warning("lines of %s are not written yet: %s", self._name, error)
        self._dirty.set()

    def close(self) -> None:
        """Write and sync everything, and close the files."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._dirty.set()
        self._syncer.join(timeout=30)
        with self._lock:
            if self._unwritten:
                logger.error("%d lines of %s were never written", len(self._unwritten), self._name)
            os.close(self._file)
            self._file = -1

    def _write(self) -> None:
        while self._unwritten:
            line = self._unwritten[0]
            if self._bytes and self._bytes + len(line) > FULL_BYTES:
                full, self._file = self._file, _own_file(self._folder, self._name)
                self._full.append(full)
                self._bytes = 0
            if os.write(self._file, line) < len(line):
                os.ftruncate(self._file, self._bytes)  # else the next line would follow on the partial one
                raise OSError(errno.ENOSPC, "only a part of a line was written")
            self._bytes += len(line)
            self._unwritten_bytes -= len(self._unwritten.popleft())

    def _sync_loop(self) -> None:
        while not self._closed.is_set():
            self._dirty.wait()
            self._dirty.clear()
            self._sync()
            self._closed.wait(SYNC_S)
        self._sync()

    def _sync(self) -> None:
        """Write and sync; after an error the next call tries again."""
        try:
            with self._lock:
                self._write()
                full, file = list(self._full), self._file
            for one in full:
                os.fsync(one)
                with self._lock:
                    self._full.remove(one)
                os.close(one)
            os.fsync(file)  # only this thread closes files, so it is still open
        except OSError as error:
            logger.warning("%s is not synced yet: %s", self._name, error)
            self._dirty.set()
