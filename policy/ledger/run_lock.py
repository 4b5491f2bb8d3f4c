"""A lock in a run's folder: who takes part in the run shares it, and who resumes the run must have had it
alone.

Invariant: it ends with the process that holds it, however that one ends. Limit: on a file system that knows
no locks everybody has it.
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
def exclusive(run: Path, patience_s: float) -> Iterator[None]:
    """As `writing`, once no other process takes part in the run, as far as locks reach: on this machine, and
    on others where the folder's file system has them. Raises `TimeoutError` when some still do after
    `patience_s`.
    """
    lock = _lock(run)
    deadline = time.monotonic() + patience_s
    try:
        while not _taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{run}: processes of this run are still alive")
            time.sleep(POLL_S)
        _taken(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def shared(run: Path) -> Iterator[None]:
    """This process takes part in the run: nobody else can resume it within."""
    lock = _lock(run)
    try:
        _taken(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _lock(run: Path) -> int:
    run.mkdir(parents=True, exist_ok=True)
    return os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)


def _taken(lock: int, kind: int) -> bool:
    """Whether the lock is ours now; a file system without locks gives everybody theirs."""
    try:
        fcntl.flock(lock, kind)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
