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
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool as Threads

PROCESSES_S = 0.25


class Attention(bootsteps.StartStopStep):
    """For threads a bell in the loop; for processes a look whether all still live."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _bell = -1  # an eventfd, one for the life of the worker; none where no thread runs jobs

    def start(self, consumer: Any) -> None:
        if isinstance(consumer.pool, Threads):
            if Attention._bell < 0:
                Attention._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            consumer.hub.add_reader(Attention._bell, self._hear)
        else:
            consumer.timer.call_repeatedly(PROCESSES_S, consumer.pool.maintain_pool)

    @classmethod
    def ring(cls) -> None:
        """Wake the loop; from any thread."""
        if cls._bell >= 0:
            os.eventfd_write(cls._bell, 1)

    @classmethod
    def _hear(cls) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(cls._bell)
