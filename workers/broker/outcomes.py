"""Outcomes and attempts of requests in Redis, each changed by one atomic script.

Invariants: one request id has one stored outcome; a success may replace a failure, never the other way round;
storing an outcome, counting it and adding it to the reply stream of its client is one step; each request is
counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis
import redis.asyncio

from workers.broker.keys import NO_REPLIES, STATS, UNACKED, attempts_key, outcome_key, queue_lists
from workers.messages import Message, Outcome
from workers.redis_script import Script

MAX_REPLIES = 10_000  # entries of one reply stream; a client further behind reads outcomes by key

COMMIT = Script("workers.broker.scripts", "commit")
RECORD_ATTEMPT = Script("workers.broker.scripts", "record_attempt")
FIND_LOST = Script("workers.broker.scripts", "find_lost")


class Attempt(Message):
    """One start of a request. `worker`: host and process id; `started`: Unix seconds, by its clock."""

    worker: str
    started: float


def _commit_arguments(outcome: Outcome, reply_to: str, ttl_s: int) -> tuple[list[str], list[str]]:
    keys = [outcome_key(outcome.request_id), reply_to or NO_REPLIES, STATS]
    ran = outcome.started > 0 and outcome.finished > 0
    return keys, [
        outcome.model_dump_json(),
        str(int(outcome.ok)),
        str(ttl_s),
        outcome.request_id,
        str(MAX_REPLIES),
        outcome.kind,
        f"{outcome.finished - outcome.started:.6f}" if ran else "",
    ]


def commit(client: redis.Redis, outcome: Outcome, reply_to: str, ttl_s: int) -> bytes:
    """Store `outcome` unless a better one is stored, and notify the client through its reply stream.

    Returns the stored outcome as JSON. Raises `redis.RedisError`.
    """
    keys, arguments = _commit_arguments(outcome, reply_to, ttl_s)
    return cast(bytes, COMMIT(client, keys, arguments))


async def commit_async(client: redis.asyncio.Redis, outcome: Outcome, reply_to: str, ttl_s: int) -> bytes:
    """As `commit`, on the event loop."""
    keys, arguments = _commit_arguments(outcome, reply_to, ttl_s)
    return cast(bytes, await COMMIT.call_async(client, keys, arguments))


def record_attempt(
    client: redis.Redis, request_id: str, attempt: Attempt, ttl_s: int
) -> tuple[bytes | None, tuple[Attempt, ...]]:
    """Record that a worker starts a request; a repeated call records the attempt once.

    Returns the outcome as JSON if there is one (then nothing is recorded), and all attempts, this one last.
    Raises `redis.RedisError`.
    """
    keys = [outcome_key(request_id), attempts_key(request_id)]
    this = attempt.model_dump_json()
    stored, attempts = RECORD_ATTEMPT(client, keys, [ttl_s, this])
    return stored, tuple(Attempt.model_validate_json(one) for one in attempts)


def remove_attempt(client: redis.Redis, request_id: str, attempt: Attempt) -> None:
    """Undo `record_attempt`, for a request that is requeued. Raises `redis.RedisError`."""
    client.lrem(attempts_key(request_id), -1, attempt.model_dump_json())


async def find_lost(
    client: redis.asyncio.Redis, requests: Sequence[tuple[str, Sequence[str]]], queues: Sequence[str]
) -> set[str]:
    """The ids that are queued nowhere, held by no worker and have no outcome.

    `requests`: pairs of request id and its delivery tags. Raises `redis.RedisError`.
    """
    keys = [UNACKED, *(key for queue in queues for key in queue_lists(queue))]
    arguments: list[str] = []
    for request_id, tags in requests:
        arguments += [request_id, str(len(tags)), *tags]
    found = await FIND_LOST.call_async(client, keys, arguments)
    return {request_id.decode() for request_id in found}
