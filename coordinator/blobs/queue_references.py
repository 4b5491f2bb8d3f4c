"""Which blobs are named in a text: in a ledger's line, a message in Redis, an outcome.

Invariant: whatever looks like a blob's name counts as one, wherever it stands, so that no reference is
overlooked; a name too many only keeps an image.
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
    """The names in `text`."""
    return {name.decode() for name in _NAME.findall(text)}


def references_in_redis(url: str) -> set[str]:
    """The names in every request that is queued or held by a worker, and in every stored outcome.

    Read in the order in which a request goes through them, so that one that moves meanwhile is not missed.
    Raises `redis.RedisError` when Redis does not answer.
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
    """The request in a message of kombu's, which a worker holds as [message, exchange, routing key]."""
    try:
        message = json.loads(entry)
        message = message[0] if isinstance(message, list) else message
        return base64.b64decode(message["body"])
    except (ValueError, LookupError, TypeError):
        return entry  # not one of ours
