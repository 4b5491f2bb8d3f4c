"""The Celery request and task classes of the jobs.

They change three things of Celery:

- A job that ended in a `Failure` counts as failed in events and dashboards. The jobs never raise, so to
  Celery each of them succeeds.
- The event loop is woken when a message is acknowledged or rejected.
- A process that keeps a model is never killed for a task.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.worker.request import Request

from workers import jobs
from workers.celery_app.backend import FAILED, TASK_PREFIX
from workers.celery_app.wakeup import WakeUp
from workers.metrics.telemetry import worker_metrics

logger = logging.getLogger(__name__)


class JobRequest(Request):
    """A worker's view of one message; `JobTask` names it as its request class."""

    _circuit_open = False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Kill the job's process (cancellation, or a dashboard's command) unless it keeps a model. Such a job
        stops by itself or runs to its end, and the stored outcome does not change.
        """
        if jobs.keeps_model(self.app.amqp.queues.consume_from):
            logger.info("%s is not killed: its process keeps a model", self.id)
        else:
            super().terminate(pool, signal)

    def send_event(self, type: str, **fields: Any) -> None:
        if type == "task-succeeded":
            shown = str(fields.get("result", ""))
            if shown.startswith(FAILED):
                type = "task-failed"
                shown = shown.removeprefix(FAILED)
                fields.update(exception=shown, traceback="")
            fields["result"] = shown
        # Name and arguments again, for a dashboard that started after the task was received.
        route = (self.delivery_info or {}).get("routing_key")
        super().send_event(type, name=self.name, args=self.argsrepr, routing_key=route, **fields)

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        error = exc_info.exception
        self._circuit_open = isinstance(getattr(error, "exc", error), Reject)  # see `execution.Requeued`
        return super().on_failure(exc_info, *arguments, **options)

    def reject(self, requeue: bool = False) -> None:
        if requeue and not self.acknowledged and self._circuit_open:
            logger.warning("requeued %s (%s): circuit open", self.id, self.name)
            self.message.channel.mark_returned(self.message.delivery_tag)
        elif requeue and not self.acknowledged:
            logger.warning("requeued %s (%s): the process that ran it died", self.id, self.name)
            worker_metrics().requeued(self.name.removeprefix(TASK_PREFIX))
        try:
            super().reject(requeue=requeue)
        finally:
            WakeUp.notify()

    def acknowledge(self) -> None:
        try:
            super().acknowledge()
        finally:
            WakeUp.notify()


class JobTask(Task):
    """Base class of all tasks."""

    abstract = True
    Request = "workers.celery_app.request:JobRequest"
    resultrepr_maxsize = 400  # what a dashboard shows of an outcome
