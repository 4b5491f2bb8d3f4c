"""Celery's result backend: stores one `Outcome` for every finished task, notifies its producer and counts it.

Invariants:
- What Celery itself reports (lost worker, time limit, revoked, exceptions) is stored here too, with its
  cause.
- Storing is retried until Redis answers, so no outcome is lost.
- The first success wins (`workers.broker.outcomes`).
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend

from workers.broker.outcomes import commit
from workers.broker.retry import is_transient
from workers.errors import Cause
from workers.messages import Failure, Outcome
from workers.metrics.telemetry import worker_metrics

logger = logging.getLogger(__name__)
CAUSES = {
    "WorkerLostError": Cause.WORKER_LOST,
    "Terminated": Cause.CANCELLED,
    "TimeLimitExceeded": Cause.TIMEOUT,
    "SoftTimeLimitExceeded": Cause.TIMEOUT,
    "TaskRevokedError": Cause.CANCELLED,
    "NotRegistered": Cause.BAD_MESSAGE,
}
TASK_PREFIX = "llmi."
FAILED = "failed: "


class Ended:
    """What a task returns to Celery: its outcome, printed as a dashboard shows it."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome

    def __repr__(self) -> str:
        result = self.outcome.result
        if isinstance(result, Failure):
            return FAILED + ": ".join(part for part in (result.cause.value, result.detail) if part)
        verdict = [f"verdict {result.verdict}"] if result.verdict is not None else []
        return ", ".join(verdict + [f"{name} {value}" for name, value in result.source.items()])


def outcome_of(task_id: str, task_name: str, result: Any, state: str) -> Outcome:
    """The outcome of a finished task. `result`: what it returned, or an exception as Celery encodes it."""
    if isinstance(result, Ended):
        return result.outcome
    error = result if isinstance(result, dict) else {}
    name = str(error.get("exc_type", type(result).__name__))
    message = error.get("exc_message", "")
    detail = " ".join(map(str, message)) if isinstance(message, (list, tuple)) else str(message)
    return Outcome(
        request_id=task_id,
        kind=task_name.removeprefix(TASK_PREFIX),
        result=Failure(cause=CAUSES.get(name, Cause.INTERNAL), detail=f"{name}: {detail}"[:2000]),
        worker=socket.gethostname(),
    )


class OutcomeBackend(RedisBackend):
    """The result backend of worker processes, named in `workers.celery_app.app`."""

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether to retry. Celery retries lost connections only; any other error would lose the outcome and
        the slot.
        """
        return bool(super().exception_safe_to_retry(exc)) or is_transient(exc)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if state not in states.READY_STATES:
            return result  # retries and starts are not outcomes
        name = getattr(request, "task", None) or getattr(request, "name", None) or ""
        reply_to = getattr(request, "reply_to", None) or ""
        outcome = outcome_of(task_id, name, result, state)
        outcome = outcome.model_copy(update={"attempt": _header(request, "attempt")})
        number = _header(request, "claim")
        self.ensure(commit, (self.client, outcome, reply_to, int(self.expires), number))
        self._count(outcome, request)
        return result

    @staticmethod
    def _count(outcome: Outcome, request: Any) -> None:
        if getattr(request, "counted", False):
            return  # Celery reports a hard time limit twice
        posted, claimed = (getattr(request, name, None) for name in ("posted", "claimed"))
        try:
            worker_metrics().ended(
                outcome,
                posted=posted if isinstance(posted, int | float) else 0.0,
                claimed=claimed if isinstance(claimed, int | float) else 0.0,
            )
            if request is not None:
                request.counted = True
        except Exception:  # the outcome is stored; a full disk must not undo that
            logger.exception("metrics of %s could not be written", outcome.request_id)


def _header(request: Any, name: str) -> int:
    """A number of the message: an attribute in the pool process, a header in the worker's own process."""
    headers = getattr(request, "request_dict", None) or {}
    return int(getattr(request, name, None) or headers.get(name, 0))
