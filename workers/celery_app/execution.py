"""The life of one message in a pool process: parse, check the circuit, run the job, return its outcome.

Before: `delivery.claimer` claims the request, `delivery.intake` validates it, and Celery receives it with its
time limit. Meanwhile: `delivery.lease` renews its lease. After: Celery passes the outcome to `backend`, which
stores it, ends its delivery and notifies the producer; then Celery acknowledges the message, which frees the
slot.

Invariants:
- No message makes the task raise, however malformed.
- A request that has an outcome by now (it was delivered twice, or cancelled meanwhile) is not run again.
- A request that is requeued because a circuit is open has used no attempt.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from typing import Any, cast

import redis
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Reject
from pydantic import ValidationError

from workers import jobs
from workers.broker.breakers import ProviderBreaker, ProviderOutage
from workers.broker.cancellation import CancellationCheck
from workers.broker.dead_letters import Reason, dead_letter_message
from workers.broker.keys import outcome_key
from workers.broker.retry import retry_redis
from workers.celery_app.backend import TASK_PREFIX, Ended
from workers.celery_app.delivery.intake import first_error
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request
from workers.redis_client import connect_redis
from workers.settings import BlobSettings, QueueSettings, section
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
STALE_S = 1.0  # a request that starts so long after its delivery may have an outcome
REQUEUE_DELAY_S = 0.5  # time for `workers.celery_app.delivery.pause` to stop consuming the queue


class Requeued(Exception):
    """The circuit of the request's provider is open, and the request goes back to its queue."""


def register(app: Celery, kind: str) -> None:
    """Make `kind` a task of `app` with the name `llmi.<kind>`."""

    @app.task(name=f"{TASK_PREFIX}{kind}", bind=True)
    def run(task: Task, *arguments: Any, **_: Any) -> Ended:
        try:
            return Ended(_stored(task.request) or handle(task.request.id, kind, arguments))
        except Requeued as requeued:
            raise Reject(str(requeued), requeue=True) from None


def _stored(delivery: Context) -> Outcome | None:
    """The outcome of a request that was delivered before, or that was not started at once; None without one.

    At the claim there was none. But after a reconnection Celery may run what was requeued, and a frozen
    worker may start what another one has run meanwhile.
    """
    redelivered = (delivery.delivery_info or {}).get("redelivered", False)
    if not redelivered and time.time() - (delivery.get("delivered") or 0.0) < STALE_S:
        return None
    return _read_outcome(delivery.id)


@retry_redis
def _read_outcome(request_id: str) -> Outcome | None:
    stored = _redis(os.getpid()).get(outcome_key(request_id))
    return Outcome.model_validate_json(cast(bytes, stored)) if stored else None


def handle(task_id: str, kind: str, arguments: tuple[Any, ...]) -> Outcome:
    """Run the request in a task's arguments and return its outcome. Raises `Requeued`."""
    try:
        request = _parse(task_id, kind, arguments)
    except ValueError as error:
        detail = first_error(error) if isinstance(error, ValidationError) else str(error)
        _dead_letter(kind, detail, arguments)
        return _failed(task_id, kind, Cause.BAD_MESSAGE, detail)

    settings = section("queue", QueueSettings)
    provider = jobs.provider_of(kind)
    late_s = time.time() - request.start_by
    if late_s >= 0:
        _dead_letter(kind, f"delivered {late_s:.0f} s after its start deadline", arguments, "expired")
    if late_s >= 0 or not provider:
        return _run(request, arguments)  # a late request ends in TIMEOUT without a run

    breaker = ProviderBreaker(_redis(os.getpid()), kind, provider, settings.breaker)
    may_wait = settings.breaker.while_open == "wait"
    if down := breaker.admit(request):
        if may_wait:
            _requeue(request, down)
        return _failed(task_id, kind, Cause.PROVIDER_DOWN, f"circuit open: {down}", provider)
    outcome = _run(request, arguments)
    if (down := breaker.record(outcome)) and may_wait:
        _requeue(request, down)
    return outcome


def _parse(task_id: str, kind: str, arguments: tuple[Any, ...]) -> Request:
    """The request of a task. Raises `ValueError`, also as pydantic's `ValidationError`."""
    if len(arguments) != 1:
        raise ValueError(f"expected one argument, the request; got {len(arguments)}")
    request = Request.model_validate(arguments[0])
    if (request.request_id, request.kind) != (task_id, kind):
        raise ValueError(
            f"request {request.request_id!r} of kind {request.kind!r} in task {task_id!r} of {kind!r}"
        )
    return request


def _run(request: Request, arguments: tuple[Any, ...]) -> Outcome:
    """Run the job; dead-letter the message if the job's payload is invalid."""
    outcome = jobs.run(request, _blobs(), CancellationCheck(request.request_id, os.getpid()))
    if isinstance(outcome.result, Failure) and outcome.result.cause is Cause.BAD_MESSAGE:
        _dead_letter(request.kind, outcome.result.detail, arguments)
    return outcome


def _requeue(request: Request, down: ProviderOutage) -> None:
    """Raise `Requeued`. Returns when no time is left to wait for the provider."""
    left_s = request.start_by - time.time()
    if left_s > REQUEUE_DELAY_S:
        time.sleep(REQUEUE_DELAY_S)
        raise Requeued(f"circuit open: {down}")


def _dead_letter(kind: str, detail: str, arguments: tuple[Any, ...], reason: Reason = "invalid") -> None:
    """Keep the message for an operator. The client gets the outcome."""
    logger.error("dead-lettered a message of the queue %s: %s", kind, detail)
    text = json.dumps(arguments, default=str).encode(errors="replace")
    try:
        ttl_s = section("queue", QueueSettings).result_ttl_s
        dead_letter_message(_redis(os.getpid()), kind, detail, text, ttl_s, reason)
    except redis.RedisError as error:
        logger.warning("the dead letter could not be stored: %s", error)


def _failed(request_id: str, kind: str, cause: Cause, detail: str, provider: str = "") -> Outcome:
    failure = Failure(cause=cause, detail=detail[:2000], provider=provider)
    return Outcome(request_id=request_id, kind=kind, result=failure, worker=jobs.worker_id())


@functools.cache
def _redis(_pid: int) -> redis.Redis:
    """One connection pool per process: sockets must not be shared across a fork."""
    return connect_redis(section("queue", QueueSettings).url)


@functools.cache
def _blobs() -> BlobStore:
    return BlobStore(section("blobs", BlobSettings).url)
