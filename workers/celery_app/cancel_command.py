"""Control command that kills the jobs of cancelled requests; `workers.client.cancellation` sends it.

Celery's own `revoke` makes every worker remember the ids for hours and discard later messages with these ids,
also those of a resumed run that posts the same request again.

Invariant: nothing is remembered, and no outcome is stored here. A cancelled request is not run because its
outcome is already stored (`workers.celery_app.execution`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state
from celery.worker.control import control_command

from workers.broker.cancellation import CANCEL_COMMAND, CANCEL_SIGNAL


def connect() -> None:
    """Register the command with this worker."""
    control_command(name=CANCEL_COMMAND)(kill_jobs)


def kill_jobs(panel: Any, ids: Sequence[str]) -> None:
    """Kill those of the requests that run here in a prefork pool. A thread cannot be killed, and a process
    that keeps a model is not (`workers.celery_app.request`).
    """
    pool = panel.consumer.pool
    if isinstance(pool, Threads):
        return
    for request_id in ids:
        if (request := state.requests.get(request_id)) is not None:
            request.terminate(pool, signal=CANCEL_SIGNAL)
