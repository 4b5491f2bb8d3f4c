"""References to blobs in a text: a ledger line, a message in Redis, an outcome.

Invariant: every SHA-256 in a text counts as a reference, so that none is missed; a wrong one only keeps a
blob.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from workers.broker.keys import UNACKED, outcome_key, queue_lists
from workers.queues import QUEUES
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis

AT_ONCE = 500
_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def references_in(text: bytes) -> set[str]:
    """The references in `text`."""
    return {name.decode() for name in _NAME.findall(text)}


def references_in_redis(url: str) -> set[str]:
    """The references in every request that is queued or held by a worker, and in every stored outcome.

    Queues are read before outcomes, as a request passes them, so that a request that moves meanwhile is not
    missed. Raises `redis.RedisError`.
    """
    found: set[str] = set()
    with connect_redis(url, SCAN_TIMEOUT_S) as client:
        for text in _texts(client):
            found |= references_in(text)
    return found


def _texts(client: Any) -> Iterator[bytes]:
    for queue in QUEUES:
        for key in queue_lists(queue):
            yield from map(_body, client.lrange(key, 0, -1))
    yield from map(_body, client.hvals(UNACKED))
    keys: list[bytes] = []
    for key in client.scan_iter(f"{outcome_key('')}*", count=1000):
        keys.append(key)
        if len(keys) == AT_ONCE:
            yield from filter(None, client.mget(keys))
            keys = []
    yield from filter(None, client.mget(keys) if keys else [])


def _body(entry: bytes) -> bytes:
    """The request in a kombu message; one that a worker holds is [message, exchange, routing key]."""
    try:
        message = json.loads(entry)
        message = message[0] if isinstance(message, list) else message
        return base64.b64decode(message["body"])
    except (ValueError, LookupError, TypeError):
        return entry  # not a message of this project
