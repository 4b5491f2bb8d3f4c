"""Keeps a worker's loop attentive: it notices at once that a job has ended, or that its process has died.

Celery's loop sleeps until a socket or a timer speaks. The end of a job in a thread is heard by neither, so
its acknowledgement and the next message would wait for the next timer; a killed process closes its pipe
before it can be reaped, so Celery, which looks right then, often finds nothing and looks again after five
seconds. Invariant: a job's end rings only after Celery has counted it, so whoever hears it finds its slot
free.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool as Threads

PROCESSES_S = 0.25


def restore_pool_state(pool: Any) -> None:
    """Of a pool whose line was made anew, what Celery 5.6 forgets with its line: how long the jobs that run
    may take (their timers went with all others), and whose processes are busy (the next job would be given to
    one, and wait there). `tests/integration/test_reconnect.py` tells when it can go.
    """
    writers = {process.pid: process.inqW_fd for process in pool._pool}
    for running in tuple(pool._cache.values()):
        if not running._accepted:
            continue
        if running._timeout:
            ran_s = time.monotonic() - running._time_accepted
            pool.on_timeout_set(running, None, max(0.01, running._timeout - ran_s))
        if running._worker_pid in writers:
            pool._busy_workers.add(writers[running._worker_pid])


class WakeUp(bootsteps.StartStopStep):
    """For threads a bell in the loop; for processes a look whether all still live."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _timer: Any = None
    _bell = -1  # an eventfd, one for the life of the worker; none where no thread runs jobs

    def start(self, consumer: Any) -> None:
        if isinstance(consumer.pool, Threads):
            if WakeUp._bell < 0:
                WakeUp._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            consumer.hub.add_reader(WakeUp._bell, self._hear)
        else:
            self._timer = consumer.timer.call_repeatedly(PROCESSES_S, consumer.pool.maintain_pool)
            restore_pool_state(consumer.pool._pool)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @classmethod
    def notify(cls) -> None:
        """Wake the loop; from any thread."""
        if cls._bell >= 0:
            os.eventfd_write(cls._bell, 1)

    @classmethod
    def _hear(cls) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(cls._bell)
