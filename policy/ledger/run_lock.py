"""A lock in a run's folder: the processes of the run share it, and resuming the run needs it exclusively.

Invariant: the lock ends with the process that holds it, however that ends. Limit: on a file system without
locks every process gets it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

LOCK = "run.lock"
POLL_S = 0.2


@contextlib.contextmanager
def exclusive(run: Path, timeout_s: float) -> Iterator[None]:
    """Wait until no other process holds the lock, then hold it as `shared` does.

    Covers this machine, and others if the file system supports locks. Raises `TimeoutError` after
    `timeout_s`.
    """
    lock = _lock(run)
    deadline = time.monotonic() + timeout_s
    try:
        while not _acquire(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{run}: processes of this run are still alive")
            time.sleep(POLL_S)
        _acquire(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def shared(run: Path) -> Iterator[None]:
    """Take part in the run: no other process can resume it within the block."""
    lock = _lock(run)
    try:
        _acquire(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _lock(run: Path) -> int:
    run.mkdir(parents=True, exist_ok=True)
    return os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)


def _acquire(lock: int, kind: int) -> bool:
    """Try to get the lock. True without trying on a file system without locks."""
    try:
        fcntl.flock(lock, kind)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
