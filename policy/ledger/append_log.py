"""Lines that outlive their process: append-only files of one writer.

The file is `<folder>/<name>.jsonl`; a full one is followed by `<name>-2.jsonl`. Invariants: a line is written
by one `write` call, so that a reader sees whole lines even after a kill; it survives its process at once, and
the machine after `SYNC_S`; while a disk takes no more, lines are kept here and written later, in order, and
none is torn in the middle of a file; nobody goes on with the file of another process, whose last line may be
torn.
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
FULL_BYTES = 64 << 20  # of one file; what readers hold of one at a time


def _own_file(folder: Path, name: str) -> int:
    """A file that nobody else has, or had: ids of processes come again after a restart of the machine."""
    for number in itertools.count(1):
        path = folder / (f"{name}.jsonl" if number == 1 else f"{name}-{number}.jsonl")
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
    raise AssertionError("unreachable")


class AppendLog:
    """`append` from any thread; `close` makes everything durable."""

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._name = name
        self._lock = threading.Lock()
        self._file = _own_file(folder, name)
        self._bytes = 0
        self._unwritten: deque[bytes] = deque()
        self._unwritten_bytes = 0
        self._full: list[int] = []  # files to be made durable and closed
        self._dirty = threading.Event()
        self._closed = threading.Event()
        # fsync may take long on a busy disk; a thread does it so that no event loop waits.
        self._syncer = threading.Thread(target=self._sync_loop, name="ledger-sync", daemon=True)
        self._syncer.start()

    def append(self, line: bytes) -> None:
        """`line` with its end. Raises `OSError` once what a disk did not take comes to `FULL_BYTES`."""
        with self._lock:
            if self._file < 0:
                raise OSError(errno.EBADF, "it is closed", self._name)
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
                os.ftruncate(self._file, self._bytes)  # else the next would stand in the same line
                raise OSError(errno.ENOSPC, "only a part of a line was taken")
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
        """What a disk refuses now is tried again by the next call."""
        try:
            with self._lock:
                self._write()
                full, file = list(self._full), self._file
            for one in full:
                os.fsync(one)
                with self._lock:
                    self._full.remove(one)
                os.close(one)
            os.fsync(file)  # this thread alone closes files, so it is open still
        except OSError as error:
            logger.warning("%s is not durable yet: %s", self._name, error)
            self._dirty.set()
