"""Rotation of the log files that worker, supervisor and trainer processes append to."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from pathlib import Path

logger = logging.getLogger(__name__)
LOG_BYTES = 32 << 20
STDOUT = 1


def rotate(log: Path, limit: int = LOG_BYTES) -> bool:
    """Empty a log larger than `limit` bytes and keep its content as `<log>.1`. Returns whether it did.

    Writers must append to the file. What they write during the copy (milliseconds) may be lost.
    """
    try:
        if log.stat().st_size <= limit:
            return False
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except OSError as error:
        logger.warning("%s could not be rotated: %s", log, error)
        return False
    return True


def own_log() -> Path | None:
    """The file that this process writes its standard output to, None when it is not a regular file."""
    if not stat.S_ISREG(os.fstat(STDOUT).st_mode):
        return None
    path = Path(os.readlink(f"/proc/self/fd/{STDOUT}"))
    return path if path.exists() else None
