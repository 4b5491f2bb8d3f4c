"""What a worker does with one message: check it, count the attempt, run the job, return the outcome as JSON.

Invariants: no message, however bad, makes the task raise; a request that already has an outcome (a cancelled
one, a second delivery) is not run again; one that took its worker down `max_attempts` times is set aside
with its history and not tried once more; one whose provider has an open circuit is requeued, which is
no attempt, or fails at once, as `queue.breaker` says.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import socket
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
from workers.settings import BlobSettings, QueueSettings, section
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
REQUEUE_DELAY_S = (
    0.5  # by then `workers.celery_app.pause` has seen it, and the request is not taken again at once
)


class Requeued(Exception):
    """The request waits in its queue, for its provider is left alone."""


def register(app: Celery, kind: str) -> None:
    """Make `kind` a task of `app`, named `llmi.<kind>`; it runs whatever job is registered for that kind."""

    @app.task(name=f"{TASK_PREFIX}{kind}", bind=True)
    def run(task: Task, *arguments: Any, **_: Any) -> dict[str, Any]:
        try:
            return handle(task.request.id, kind, arguments).model_dump(mode="json")
        except Requeued as held:
            raise Reject(str(held), requeue=True) from None


def handle(task_id: str, kind: str, arguments: tuple[Any, ...]) -> Outcome:
    """Run the request in a task's arguments to its outcome. Raises `Requeued`."""
    try:
        if len(arguments) != 1:
            raise ValueError(f"expected one argument, the request; got {len(arguments)}")
        request = Request.model_validate(arguments[0])
        if (request.request_id, request.kind) != (task_id, kind):
            raise ValueError(
                f"request {request.request_id!r} of kind {request.kind!r} in task {task_id!r} of {kind!r}"
            )
    except ValueError as error:
        detail = first_error(error) if isinstance(error, ValidationError) else str(error)
        _dead_letter(kind, detail, arguments)
        return _failed(task_id, kind, Cause.BAD_MESSAGE, detail)
    settings = section("queue", QueueSettings)
    this = Attempt(worker=_worker(), begun=time.time())
    stored, attempts = _begin(request.request_id, this, settings.result_ttl_s)
    if stored is not None:
        return Outcome.model_validate_json(stored)
    if len(attempts) > settings.max_attempts:
        _dead_letter_poison(request, attempts[:-1], settings.result_ttl_s)
        detail = f"given to a worker {settings.max_attempts} times, and none finished it"
        return _failed(task_id, kind, Cause.WORKER_LOST, detail)
    provider = jobs.provider_of(kind)
    late_s = time.time() - request.start_by
    late = late_s >= 0
    if late:
        _dead_letter(kind, f"its start deadline had passed {late_s:.0f} s before", arguments, "expired")
    if not provider or late:
        return _run(request, arguments)
    breaker = ProviderBreaker(_redis(os.getpid()), kind, provider, settings.breaker)
    waits = settings.breaker.while_open == "wait"
    if down := breaker.admit(request):
        if waits:
            _hold(request, this, down)
        return _failed(task_id, kind, Cause.PROVIDER_DOWN, f"left alone: {down}", provider)
    outcome = _run(request, arguments)
    if (down := breaker.record(outcome)) and waits:
        _hold(request, this, down)
    return outcome


def _run(request: Request, arguments: tuple[Any, ...]) -> Outcome:
    outcome = jobs.run(request, _blobs(), CancellationCheck(request.request_id, os.getpid()))
    if isinstance(outcome.result, Failure) and outcome.result.cause is Cause.BAD_MESSAGE:
        _dead_letter(request.kind, outcome.result.detail, arguments)
    return outcome


def _dead_letter(kind: str, detail: str, arguments: tuple[Any, ...], reason: Reason = "invalid") -> None:
    """Add it to the dead letters; the client gets the outcome."""
    text = json.dumps(arguments, default=str).encode(errors="replace")
    try:
        ttl_s = section("queue", QueueSettings).result_ttl_s
        dead_letter_message(_redis(os.getpid()), kind, detail, text, ttl_s, reason)
    except redis.RedisError as error:
        logger.warning("the dead letter of %s (%s) could not be stored: %s", kind, detail, error)


def _hold(request: Request, this: Attempt, down: ProviderOutage) -> None:
    """Raises `Requeued`, unless the request's time is over."""
    left = request.start_by - time.time()
    if left > REQUEUE_DELAY_S:
        time.sleep(REQUEUE_DELAY_S)
        with contextlib.suppress(redis.RedisError):  # then it was an attempt
            remove_attempt(_redis(os.getpid()), request.request_id, this)
        raise Requeued(str(down))


@retry_redis
def _begin(request_id: str, this: Attempt, ttl_s: int) -> tuple[bytes | None, tuple[Attempt, ...]]:
    return record_attempt(_redis(os.getpid()), request_id, this, ttl_s)


@retry_redis
def _dead_letter_poison(request: Request, attempts: tuple[Attempt, ...], ttl_s: int) -> None:
    dead_letter_poison(_redis(os.getpid()), request, attempts, ttl_s)


def _failed(request_id: str, kind: str, cause: Cause, detail: str, provider: str = "") -> Outcome:
    failure = Failure(cause=cause, detail=detail[:2000], provider=provider)
    return Outcome(request_id=request_id, kind=kind, result=failure, worker=_worker())


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@functools.cache
def _redis(_pid: int) -> redis.Redis:
    """One connection pool per process: sockets must not be shared across a fork."""
    return redis.Redis.from_url(
        section("queue", QueueSettings).url, socket_timeout=5.0, socket_connect_timeout=5.0
    )


@functools.cache
def _blobs() -> BlobStore:
    return BlobStore(section("blobs", BlobSettings).url)
