"""Messages that no worker could take for a request, kept for people to look at, with the reason.

Invariants: the newest comes first; at most `KEPT` are kept, each and its reason cut to `SHOWN`, and they are
forgotten with outcomes; a poster who can be found in what is left of its message is told at once
(BAD_MESSAGE) instead of waiting for its deadline.
"""

from __future__ import annotations

import re
import time
from typing import Any

import redis

from workers.broker.outcomes import commit
from workers.errors import Cause
from workers.messages import Failure, Message, Outcome, Text

KEY = "llmi:dead-letters"
KEPT = 1_000
SHOWN = 2_000
MAX_BYTES = 1 << 20  # of a message; the longest tag (100,000 characters) takes 0.8 MB at most
TIMEOUT_S = 5.0
_ID = re.compile(rb'"correlation_id": ?"([^"\\]{1,128})"')
_REPLY_TO = re.compile(rb'"reply_to": ?"(llmi:replies:[0-9a-f]{32})"')


class DeadLetter(Message):
    """`since`: Unix seconds; `message`: its beginning, as text."""

    queue: Text
    reason: Text
    since: float
    size: int
    message: str


def bury(client: redis.Redis, queue: str, reason: str, message: bytes, ttl_s: int) -> None:
    """Keep it, and tell its poster if it names one. Raises `redis.RedisError`."""
    reason = reason[:SHOWN]
    letter = DeadLetter(
        queue=queue,
        reason=reason,
        since=time.time(),
        size=len(message),
        message=message[:SHOWN].decode(errors="replace"),
    )
    pipeline: Any = client.pipeline()
    pipeline.lpush(KEY, letter.model_dump_json())
    pipeline.ltrim(KEY, 0, KEPT - 1)
    pipeline.expire(KEY, ttl_s)
    pipeline.execute()
    if named := _ID.search(message):
        answered = _REPLY_TO.search(message)
        outcome = Outcome(
            request_id=named[1].decode(errors="replace"),
            kind=queue,
            result=Failure(cause=Cause.BAD_MESSAGE, detail=reason),
        )
        commit(client, outcome, answered[1].decode() if answered else "", ttl_s)


def read_dead_letters(url: str) -> list[DeadLetter]:
    """All that are kept. Raises `redis.RedisError` when Redis does not answer."""
    with redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
        letters: Any = client.lrange(KEY, 0, -1)
    return [DeadLetter.model_validate_json(letter) for letter in letters]
