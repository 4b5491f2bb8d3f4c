"""Stores outcomes in Redis.

Invariants: one request id has one stored outcome; a success may replace a failure, never the other way round;
storing an outcome, ending the delivery of its request, counting it and notifying its client is one atomic
step; each request is counted once. A worker that was silent, and whose request is queued or held again,
stores no failure.
"""

from __future__ import annotations

from typing import cast

import redis
import redis.asyncio

from workers.broker.keys import STATS, outcome_key, record_key
from workers.messages import Outcome
from workers.redis_script import Script

MAX_REPLIES = 10_000  # entries of one reply stream; a client further behind finds outcomes by its checks

COMMIT = Script("workers.broker.scripts", "commit", "queue")


def _arguments(
    outcome: Outcome, reply_to: str, ttl_s: int, cancel: bool, number: int = 0
) -> tuple[list[str], list[str]]:
    keys = [outcome_key(outcome.request_id), record_key(outcome.request_id), STATS]
    ran = outcome.started > 0 and outcome.finished > 0
    return keys, [
        outcome.model_dump_json(),
        str(int(outcome.ok)),
        str(ttl_s),
        outcome.request_id,
        str(MAX_REPLIES),
        outcome.kind,
        f"{outcome.finished - outcome.started:.6f}" if ran else "",
        reply_to,
        str(int(cancel)),
        str(number),
    ]


def commit(client: redis.Redis, outcome: Outcome, reply_to: str, ttl_s: int, number: int = 0) -> bytes:
    """Store `outcome` unless a better one is stored, and notify the client through its reply stream.

    `reply_to`: the stream, for a request that Redis has lost. `number`: of the claim under which it ran; 0
    for none. Returns the stored outcome as JSON. Raises `redis.RedisError`.
    """
    keys, arguments = _arguments(outcome, reply_to, ttl_s, cancel=False, number=number)
    return cast(bytes, COMMIT(client, keys, arguments))


async def commit_cancelled(client: redis.asyncio.Redis, outcome: Outcome, ttl_s: int) -> bytes:
    """Store the outcome of a cancelled request: it leaves its queue, or its worker is notified. Returns the
    stored outcome as JSON, which may be an earlier one. Raises `redis.RedisError`.
    """
    keys, arguments = _arguments(outcome, "", ttl_s, cancel=True)
    return cast(bytes, await COMMIT.call_async(client, keys, arguments))
