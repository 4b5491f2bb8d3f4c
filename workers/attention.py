"""Keeps a worker's loop attentive: it notices at once that a job has ended, or that its process has died.

Celery's loop sleeps until a socket or a timer speaks. The end of a job in a thread is heard by neither, so
the next message would wait up to a second; a killed process closes its pipe before it can be reaped, so
Celery, which looks right then, often finds nothing and looks again after five seconds.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

THREADS_S = 0.02
PROCESSES_S = 0.25


class Attention(bootsteps.StartStopStep):
    """One timer: for threads its mere firing is enough; for processes it looks whether all still live."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        look = getattr(consumer.pool, "maintain_pool", None)
        if look is None:
            consumer.timer.call_repeatedly(THREADS_S, lambda: None)
        else:
            consumer.timer.call_repeatedly(PROCESSES_S, look)
