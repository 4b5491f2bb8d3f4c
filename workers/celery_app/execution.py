"""The life of one message in a pool process: parse, count the attempt, run the job, return its outcome.

Before: `transport.channel` validates the queue entry, Celery receives it, and `lease` sets its time limit and
holds its lease. After: Celery passes the outcome to `backend`, which stores it and notifies the producer;
then Celery acknowledges the message.

Invariants:
- No message makes the task raise, however malformed.
- A request that already has an outcome (cancelled, or delivered twice) is not run again.
- A request that ended its worker process `max_attempts` times is quarantined with its attempts.
- A request that is requeued because a circuit is open has used no attempt.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import time
from typing import Any

import redis
from celery import Celery, Task
from celery.exceptions import Reject
from pydantic import ValidationError

from workers import jobs
from workers.broker.breakers import ProviderBreaker, ProviderOutage
from workers.broker.cancellation import CancellationCheck
from workers.broker.dead_letters import Reason, dead_letter_message, dead_letter_poison
from workers.broker.outcomes import Attempt, record_attempt, remove_attempt
from workers.broker.retry import retry_redis
from workers.celery_app.backend import TASK_PREFIX
from workers.celery_app.transport.validation import first_error
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request
from workers.redis_client import connect_redis
from workers.settings import BlobSettings, QueueSettings, section
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
REQUEUE_DELAY_S = 0.5  # time for `workers.celery_app.pause` to stop consuming the queue


class Requeued(Exception):
    """The circuit of the request's provider is open, and the request goes back to its queue."""


def register(app: Celery, kind: str) -> None:
    """Make `kind` a task of `app` with the name `llmi.<kind>`."""

    @app.task(name=f"{TASK_PREFIX}{kind}", bind=True)
    def run(task: Task, *arguments: Any, **_: Any) -> dict[str, Any]:
        try:
            return handle(task.request.id, kind, arguments).model_dump(mode="json")
        except Requeued as requeued:
            raise Reject(str(requeued), requeue=True) from None


def handle(task_id: str, kind: str, arguments: tuple[Any, ...]) -> Outcome:
    """Run the request in a task's arguments and return its outcome. Raises `Requeued`."""
    try:
        request = _parse(task_id, kind, arguments)
    except ValueError as error:
        detail = first_error(error) if isinstance(error, ValidationError) else str(error)
        _dead_letter(kind, detail, arguments)
        return _failed(task_id, kind, Cause.BAD_MESSAGE, detail)

    settings = section("queue", QueueSettings)
    attempt = Attempt(worker=jobs.worker_id(), started=time.time())
    stored, attempts = _begin(task_id, attempt, settings.result_ttl_s)
    if stored is not None:
        return Outcome.model_validate_json(stored)
    if len(attempts) > settings.max_attempts:
        _quarantine(request, attempts[:-1], settings.result_ttl_s)
        detail = f"{settings.max_attempts} workers were lost while they ran it"
        return _failed(task_id, kind, Cause.WORKER_LOST, detail)

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
            _requeue(request, attempt, down)
        return _failed(task_id, kind, Cause.PROVIDER_DOWN, f"circuit open: {down}", provider)
    outcome = _run(request, arguments)
    if (down := breaker.record(outcome)) and may_wait:
        _requeue(request, attempt, down)
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


def _requeue(request: Request, attempt: Attempt, down: ProviderOutage) -> None:
    """Raise `Requeued` and uncount the attempt. Returns when no time is left to wait for the provider."""
    left_s = request.start_by - time.time()
    if left_s > REQUEUE_DELAY_S:
        time.sleep(REQUEUE_DELAY_S)
        with contextlib.suppress(redis.RedisError):  # the attempt then counts
            remove_attempt(_redis(os.getpid()), request.request_id, attempt)
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


@retry_redis
def _begin(request_id: str, attempt: Attempt, ttl_s: int) -> tuple[bytes | None, tuple[Attempt, ...]]:
    return record_attempt(_redis(os.getpid()), request_id, attempt, ttl_s)


@retry_redis
def _quarantine(request: Request, attempts: tuple[Attempt, ...], ttl_s: int) -> None:
    logger.error("quarantined %s (%s): %d workers were lost", request.request_id, request.kind, len(attempts))
    dead_letter_poison(_redis(os.getpid()), request, attempts, ttl_s)


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
