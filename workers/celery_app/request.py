"""A task as dashboards show it: its route stands in its events, and a failed job counts as failed.

Our jobs end in an outcome, never in an exception, so to Celery each of them succeeds. Events are changed
here; what Celery does with a task is not, but for two things: its loop is woken at the end of each, and a
process that keeps a model is never killed for a task.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.worker.request import Request

from workers import jobs
from workers.celery_app.backend import TASK_PREFIX
from workers.celery_app.transport.wakeup import WakeUp
from workers.metrics.telemetry import worker_metrics

logger = logging.getLogger(__name__)

# In a printed outcome, which is cut after `JobTask.resultrepr_maxsize` characters.
RESULT = re.compile(r"'result': \{'status': '(\w+)', (?P<rest>.*)", re.DOTALL)
FAILURE = re.compile(r"'cause': '(\w+)'(?:, 'detail': (['\"])(.*?)(?:\2, 'provider'|$))?", re.DOTALL)
MADE = re.compile(r"'verdict': (None|\{.*?\}), 'source': \{(.*?)(?:\}\}, 'worker'|$)", re.DOTALL)


def event_summary(printed: str) -> tuple[bool, str]:
    """Whether a printed outcome is a success, and what to show of it: cause and detail, or verdict and
    source.
    """
    result = RESULT.search(printed)
    if result is None:
        return True, printed
    failure = FAILURE.match(result["rest"])
    if result[1] == "failure" and failure is not None:
        return False, ": ".join(part for part in (failure[1], failure[3]) if part)
    made = MADE.search(result["rest"])
    if made is None:
        return True, result["rest"]
    return True, ", ".join(part for part in (made[1], made[2]) if part not in ("None", ""))


def keeps_model(app: Celery) -> bool:
    """Whether a process of this worker keeps a model for one of the queues that it consumes. Then no job in
    it is killed, of whatever queue: the next job would wait for the model to be loaded again.
    """
    return any(jobs.holds_model(queue) for queue in app.amqp.queues.consume_from)


class JobRequest(Request):
    """Named by `JobTask` as what a worker makes of each message."""

    _held = False

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Kill the job's process, for a cancellation or from a dashboard. One that keeps a model is not
        killed: its job stops by itself or runs to its end, and the stored outcome does not change.
        """
        if keeps_model(self.app):
            logger.info("%s is not ended by force: its process keeps a model", self.id)
        else:
            super().terminate(pool, signal)

    def send_event(self, type: str, **fields: Any) -> None:
        if type == "task-succeeded":
            success, fields["result"] = event_summary(str(fields.get("result", "")))
            if not success:
                type = "task-failed"
                fields.update(exception=fields["result"], traceback="")
        # Name and arguments too: a dashboard that was started later has not seen this task come.
        route = (self.delivery_info or {}).get("routing_key")
        super().send_event(type, name=self.name, args=self.argsrepr, routing_key=route, **fields)

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        error = exc_info.exception
        self._held = isinstance(getattr(error, "exc", error), Reject)  # it waits, and nobody died
        return super().on_failure(exc_info, *arguments, **options)

    def reject(self, requeue: bool = False) -> None:
        if requeue and not self.acknowledged and not self._held:
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
    """The base of every task."""

    abstract = True
    Request = "workers.celery_app.request:JobRequest"
    resultrepr_maxsize = 400  # what a dashboard shows of an outcome
