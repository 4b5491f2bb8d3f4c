"""The folder in which the processes of one worker add up their metrics, in the temporary folder.

Invariants:
- It is removed when its owner has ended. After a killed owner, the next owner on this machine removes it.
- An owner is alive while it holds a file lock; process ids are not used.
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
    """A folder owned by this process until `remove`, which also runs when the object is garbage-collected."""

    def __init__(self) -> None:
        remove_orphans()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        unfinished = self.path / "unfinished"
        lock = os.open(unfinished, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        unfinished.rename(self.path / OWNER)  # from here on `remove_orphans` of others may see it
        self.remove = weakref.finalize(self, _remove, self.path, lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def remove_orphans() -> None:
    """Remove the folders of owners that were killed."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        try:
            lock = os.open(owner, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # its owner removed it, or it is another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # its owner is alive
        else:
            shutil.rmtree(owner.parent, ignore_errors=True)
        finally:
            os.close(lock)
