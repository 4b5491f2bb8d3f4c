"""Wakes a worker's event loop as soon as a request was claimed, a job has ended or a pool process has died.

Celery's loop sleeps until a socket or a timer is due. Three events are neither. A claimed request. The end of
a job in a thread: its acknowledgement would wait for the next timer. The death of a pool process: it closes
its pipe before it can be reaped, so Celery checks too early and again only after five seconds.

Invariant: the loop is woken after Celery has counted the job as finished, so it finds the slot free.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from celery.concurrency.thread import TaskPool as Threads

from workers.celery_app.prefork import restore_pool_state
from workers.celery_app.timer_step import TimerStep

CHECK_S = 0.25


class WakeUp(TimerStep):
    """An eventfd in the loop, and for a prefork pool a check of its processes."""

    _eventfd = -1  # one for the life of the worker

    def start(self, consumer: Any) -> None:
        if WakeUp._eventfd < 0:
            WakeUp._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        consumer.hub.add_reader(WakeUp._eventfd, self._clear)
        if not isinstance(consumer.pool, Threads):
            self.repeat(consumer, CHECK_S, consumer.pool.maintain_pool)
            restore_pool_state(consumer.pool)

    @classmethod
    def notify(cls) -> None:
        """Wake the loop. May be called from any thread."""
        if cls._eventfd >= 0:
            os.eventfd_write(cls._eventfd, 1)

    @classmethod
    def _clear(cls) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(cls._eventfd)
