"""What keeps a worker from growing: its log is cut back, and a process that has come to take too much memory
makes way for a new one between two jobs.

Invariants: no job is ended for it; a pool process is replaced by Celery itself (`--max-memory-per-child`),
a worker of threads ends as if asked to (it finishes what runs, gives back the rest), and whoever keeps
workers starts another; only a log that Celery writes to a file is cut, and what it held before is kept once.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import psutil
from celery import bootsteps
from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state

logger = logging.getLogger(__name__)
EVERY_S = 10.0
LOG_BYTES = 32 << 20
STDOUT = 1


def cut(log: Path, limit: int = LOG_BYTES) -> bool:
    """Empty a log that has grown beyond `limit` bytes, keeping what it held as `<log>.1`. Returns whether it
    did.

    For files that are appended to, by whichever process: what is written meanwhile (milliseconds) may be
    lost.
    """
    try:
        if log.stat().st_size <= limit:
            return False
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except OSError as error:
        logger.warning("%s could not be cut back: %s", log, error)
        return False
    return True


def own_log() -> Path | None:
    """The file that this process writes its output to, if it is one."""
    if not stat.S_ISREG(os.fstat(STDOUT).st_mode):
        return None
    path = Path(os.readlink(f"/proc/self/fd/{STDOUT}"))
    return path if path.exists() else None


class Upkeep(bootsteps.StartStopStep):
    """Looks every `EVERY_S` seconds."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any):
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        self._timer = consumer.timer.call_repeatedly(EVERY_S, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _look(consumer: Any) -> None:
        if log := own_log():
            cut(log)
        may_take = consumer.controller.max_memory_per_child  # KiB
        taken = psutil.Process().memory_info().rss // 1024
        if isinstance(consumer.pool, Threads) and may_take and taken > may_take and state.should_stop is None:
            logger.warning("this worker takes %d MiB, more than its pool's memory_mb; it ends", taken >> 10)
            state.should_stop = 0  # an orderly end, as after SIGTERM
