"""The folder in which the processes of one worker add up their metrics, in the system's temporary one.

Invariants: it is gone when its owner has ended; where the owner was killed, the next owner on this machine
removes it. Whether an owner lives is told by a lock that ends with it, not by a process id.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "llmi-metrics-"
OWNER = "owner"


class MetricsFolder:
    """Made and owned by this process until `remove`, which also happens when nobody holds it any more."""

    def __init__(self) -> None:
        remove_orphans()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        making = self.path / "making"
        lock = os.open(making, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        making.rename(self.path / OWNER)  # only now may another sweep look at it
        self.remove = weakref.finalize(self, _remove, self.path, lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def remove_orphans() -> None:
    """Remove the folders of owners that have died."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        try:
            lock = os.open(owner, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # removed by its owner meanwhile, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # its owner lives
        else:
            shutil.rmtree(owner.parent, ignore_errors=True)
        finally:
            os.close(lock)
