"""Wakes a worker's event loop as soon as a request was claimed, a job has ended or a pool process has died.

Celery's loop sleeps until a socket or a timer is due. Three events are neither. A claimed request. The end of
a job in a thread: its acknowledgement would wait for the next timer. The death of a pool process: it closes
its pipe before it can be reaped, so Celery checks too early and again only after five seconds.

Invariant: the loop is woken after Celery has counted the job as finished, so it finds the slot free.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from celery.concurrency.thread import TaskPool as Threads

from workers.celery_app.timer_step import TimerStep

CHECK_S = 0.25


def restore_pool_state(pool: Any) -> None:
    """Restore what Celery 5.6 forgets about a prefork pool when the connection is lost.

    That is: the time limits of running jobs (their timers are dropped with all others), and which processes
    are busy (the next job would be sent to a busy one and wait there). `tests/integration/test_reconnect.py`
    shows when this can go.
    """
    pipes = {process.pid: process.inqW_fd for process in pool._pool}
    for running in tuple(pool._cache.values()):
        if not running._accepted:
            continue
        if running._timeout:
            ran_s = time.monotonic() - running._time_accepted
            pool.on_timeout_set(running, None, max(0.01, running._timeout - ran_s))
        if running._worker_pid in pipes:
            pool._busy_workers.add(pipes[running._worker_pid])


class WakeUp(TimerStep):
    """An eventfd in the loop, and for a prefork pool a check of its processes."""

    _eventfd = -1  # one for the life of the worker

    def start(self, consumer: Any) -> None:
        if WakeUp._eventfd < 0:
            WakeUp._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        consumer.hub.add_reader(WakeUp._eventfd, self._clear)
        if not isinstance(consumer.pool, Threads):
            self.repeat(consumer, CHECK_S, consumer.pool.maintain_pool)
            restore_pool_state(consumer.pool._pool)

    @classmethod
    def notify(cls) -> None:
        """Wake the loop. May be called from any thread."""
        if cls._eventfd >= 0:
            os.eventfd_write(cls._eventfd, 1)

    @classmethod
    def _clear(cls) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(cls._eventfd)
