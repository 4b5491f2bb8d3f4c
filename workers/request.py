"""A task as dashboards show it: its route stands in its events, and a failed job counts as failed.

Our jobs end in an outcome, never in an exception, so to Celery each of them succeeds. Events alone are
changed here; what Celery does with a task is not.
"""

from __future__ import annotations

import re
from typing import Any

from celery import Task
from celery.worker.request import Request

from workers.backend import TASK_PREFIX
from workers.telemetry import worker_metrics

# In the printed result, which is cut after `JobTask.resultrepr_maxsize` characters.
FAILURE = re.compile(r"'status': 'failure', 'cause': '(\w+)'(?:, 'detail': (['\"])(.*?)(?:\2|$))?")


class ShownRequest(Request):
    """Named by `JobTask` as what a worker makes of each message."""

    def send_event(self, type: str, **fields: Any) -> None:
        route = (self.delivery_info or {}).get("routing_key")
        failure = FAILURE.search(str(fields.get("result", ""))) if type == "task-succeeded" else None
        if failure is not None:
            why = ": ".join(part for part in (failure[1], failure[3]) if part)
            super().send_event(
                "task-failed", exception=why, runtime=fields.get("runtime"), routing_key=route, traceback=""
            )
            return
        super().send_event(type, routing_key=route, **fields)

    def reject(self, requeue: bool = False) -> None:
        if requeue and not self.acknowledged:
            worker_metrics().given_back(self.name.removeprefix(TASK_PREFIX))
        super().reject(requeue=requeue)


class JobTask(Task):
    """The base of every task."""

    abstract = True
    Request = "workers.request:ShownRequest"
    resultrepr_maxsize = 400  # what a dashboard shows of an outcome
