"""Keeps a long-lived worker small: rotates its log and enforces its memory limit between two jobs.

Invariants:
- Neither of the two ends a job. Celery itself replaces a pool process above its limit
  (`--max-memory-per-child`). A worker with a thread pool shuts down warm (finishes what runs, requeues the
  rest), and the process that owns it starts another.
- Only a log that the worker writes to a regular file is rotated.
"""

from __future__ import annotations

import logging
from typing import Any

import psutil
from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state

from workers.celery_app.timer_step import TimerStep
from workers.process.log_rotation import own_log, rotate

logger = logging.getLogger(__name__)
CHECK_S = 10.0


class Maintenance(TimerStep):
    """Checks every `CHECK_S` seconds."""

    def start(self, consumer: Any) -> None:
        self.repeat(consumer, CHECK_S, self._check, consumer)

    @staticmethod
    def _check(consumer: Any) -> None:
        if log := own_log():
            rotate(log)
        limit_kib = consumer.controller.max_memory_per_child
        used_kib = psutil.Process().memory_info().rss // 1024
        threads = isinstance(consumer.pool, Threads)
        if threads and limit_kib and used_kib > limit_kib and state.should_stop is None:
            logger.warning(
                "this worker uses %d MiB, more than its pool's memory_mb; shutting down", used_kib >> 10
            )
            state.should_stop = 0  # a warm shutdown, as after SIGTERM
