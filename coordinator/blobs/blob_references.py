"""References to blobs: in a text, such as a ledger line, and in the messages and outcomes in Redis.

Invariant: every SHA-256 in a text counts as a reference, so that none is missed; a wrong one only keeps a
blob.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from workers.broker.keys import outcome_key, record_key
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis

AT_ONCE = 500
_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def references_in(text: bytes) -> set[str]:
    """The references in `text`."""
    return {name.decode() for name in _NAME.findall(text)}


def references_in_redis(url: str) -> set[str]:
    """The references in every request that is queued or held by a worker, and in every stored outcome.

    Requests are read before outcomes, so that one that ends meanwhile is not missed. Raises
    `redis.RedisError`.
    """
    found: set[str] = set()
    with connect_redis(url, SCAN_TIMEOUT_S) as client:
        for text in _texts(client):
            found |= references_in(text)
    return found


def _texts(client: Any) -> Iterator[bytes]:
    for keys in _batches(client.scan_iter(f"{record_key('')}*", count=1000)):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, "message")
        yield from filter(None, pipeline.execute())
    for keys in _batches(client.scan_iter(f"{outcome_key('')}*", count=1000)):
        yield from filter(None, client.mget(keys))


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(itertools.islice(keys, AT_ONCE)):
        yield batch
