"""The command by which a worker is told to end running requests (`workers.client.cancellation` sends it).

Celery's own (`revoke`) makes every worker remember the ids for hours and throw away what comes under them,
also a request that a resumed run has taken up. Invariant: nothing is remembered and no outcome is made up;
what keeps a cancelled request from being run, by whichever worker, is its stored outcome
(`workers.celery_app.execution`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state
from celery.worker.control import control_command

from workers.broker.cancellation import CANCEL_COMMAND, CANCEL_SIGNAL


def connect() -> None:
    """Make it a command of this worker: called once, where the app is made."""
    control_command(name=CANCEL_COMMAND)(end)


def end(panel: Any, ids: Sequence[str]) -> None:
    """End those that run here in a process of their own; a thread cannot be ended, and a process that keeps a
    model is not (`workers.celery_app.request`).
    """
    pool = panel.consumer.pool
    if isinstance(pool, Threads):
        return
    for request_id in ids:
        if (request := state.requests.get(request_id)) is not None:
            request.terminate(pool, signal=CANCEL_SIGNAL)
