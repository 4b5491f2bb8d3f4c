"""Turns a claim into a message for Celery, or refuses it.

Invariants: a message that reaches Celery holds one valid request of its queue; every refused request has an
outcome; no message raises anything but `Refused` and pydantic's `ValidationError`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from kombu import Message
from pydantic import ValidationError

from workers.broker.claims import Claim
from workers.broker.dead_letters import QUARANTINED, dead_letter_message, dead_letter_poison, payload_summary
from workers.broker.outcomes import commit
from workers.broker.posting import MAX_MESSAGE_BYTES
from workers.broker.retry import retry_redis
from workers.celery_app.backend import TASK_PREFIX
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request

logger = logging.getLogger(__name__)


class Refused(Exception):
    """A message that no worker runs. `poison`: the request, if it has ended its worker too often."""

    def __init__(self, why: str, poison: Request | None = None):
        super().__init__(why)
        self.poison = poison


def read_request(claim: Claim, max_attempts: int) -> Request:
    """The request of a claim, with its deadline by the clock of this machine.

    Raises `Refused` or `ValidationError`.
    """
    if not claim.number:
        raise Refused("the entry of the queue is not the id of a request")
    if len(claim.message) > MAX_MESSAGE_BYTES:
        raise Refused(f"{len(claim.message)} bytes, and a message has at most {MAX_MESSAGE_BYTES}")
    request = Request.model_validate_json(claim.message)
    if (request.request_id, request.kind) != (claim.request_id, claim.queue):
        raise Refused(f"it holds another request, {request.request_id!r} of kind {request.kind[:100]!r}")
    if len(claim.lost) >= max_attempts:
        raise Refused(f"{QUARANTINED}{len(claim.lost)} workers were lost while they ran it", request)
    return request.model_copy(update={"deadline": time.time() + claim.left_s})


def message_of(claim: Claim, request: Request, tag: str, channel: Any, kill_after_s: float) -> Message:
    """A message of Celery's protocol 2 with one argument, the request.

    `kill_after_s`: Celery's hard time limit.
    """
    name = f"{TASK_PREFIX}{request.kind}"
    headers = {
        "task": name,
        "id": request.request_id,
        "root_id": request.request_id,
        "parent_id": None,
        "lang": "py",
        "argsrepr": payload_summary(request),
        "kwargsrepr": "",
        "ignore_result": False,
        "timelimit": [kill_after_s, None],
        "posted": time.time() - claim.age_s,
        "delivered": time.time(),
        "attempt": claim.attempt,
        "claim": claim.number,
        "traceparent": request.traceparent,
    }
    return Message(
        body=f"[[{request.model_dump_json()}], {{}}, {{}}]",
        delivery_tag=tag,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={
            "exchange": "",
            "routing_key": claim.queue,
            "redelivered": claim.attempt > 1,
        },
        properties={
            "correlation_id": request.request_id,
            "reply_to": claim.reply_to,
            "priority": request.priority,
        },
        headers=headers,
        channel=channel,
    )


def first_error(error: ValidationError) -> str:
    """The first error in one line. It names fields, and repeats no value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    return f"{where}: {first['msg']}" if where else str(first["msg"])


@retry_redis
def refuse(client: redis.Redis, claim: Claim, error: Refused | ValidationError, ttl_s: int) -> None:
    """Keep the message for an operator, and store an outcome."""
    why = f"invalid request: {first_error(error)}" if isinstance(error, ValidationError) else str(error)
    cause = Cause.BAD_MESSAGE
    if isinstance(error, Refused) and error.poison is not None:
        logger.error("quarantined %s (%s): %s", claim.request_id, claim.queue, why)
        dead_letter_poison(client, error.poison, claim.lost, ttl_s)
        cause = Cause.WORKER_LOST
    else:
        logger.error("dead-lettered a message of the queue %s: %s", claim.queue, why)
        dead_letter_message(client, claim.queue, why, claim.message, ttl_s)
    if claim.number:
        failure = Failure(cause=cause, detail=why[:2000])
        outcome = Outcome(request_id=claim.request_id, kind=claim.queue, result=failure)
        commit(client, outcome, claim.reply_to, ttl_s)
