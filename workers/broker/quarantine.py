"""Requests that ended the worker that ran them as often as is allowed: set aside with their history.

Invariants: the producer has its outcome (WORKER_LOST) like that of any other request, this list is for people
to look at; the newest comes first; it holds at most `KEPT` requests, told once each, and is forgotten with
their outcomes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis

from workers.broker.outcomes import Attempt
from workers.messages import Message, Request

KEY = "llmi:set-aside"
KEPT = 100
TIMEOUT_S = 5.0


class SetAside(Message):
    """`asked`: the payload, cut short; `since`: when it was set aside, Unix seconds; `attempts`: in order."""

    request_id: str
    kind: str
    owner: str = ""
    asked: str = ""
    since: float
    attempts: tuple[Attempt, ...]


def set_aside(client: redis.Redis, request: Request, attempts: Sequence[Attempt], ttl_s: int) -> None:
    """Note a request that is not tried again. Raises `redis.RedisError`."""
    from workers.client.publisher import shown  # here: it brings Celery, which those who only read do without

    entry = SetAside(
        request_id=request.request_id,
        kind=request.kind,
        owner=request.owner,
        asked=shown(request),
        since=time.time(),
        attempts=tuple(attempts),
    )
    pipeline: Any = client.pipeline()
    pipeline.lpush(KEY, entry.model_dump_json())
    pipeline.ltrim(KEY, 0, KEPT - 1)
    pipeline.expire(KEY, ttl_s)
    pipeline.execute()


def read_set_aside(url: str) -> list[SetAside]:
    """All that were set aside. Raises `redis.RedisError` when Redis does not answer."""
    with redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
        entries: Any = client.lrange(KEY, 0, -1)
    found: dict[str, SetAside] = {}
    for entry in entries:  # a worker that died between this list and the outcome had it noted twice
        one = SetAside.model_validate_json(entry)
        found.setdefault(one.request_id, one)
    return list(found.values())
