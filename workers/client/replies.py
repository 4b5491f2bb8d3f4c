"""Reads outcomes: a blocking read of the reply stream of the client, and polls by key.

Invariants: an outcome arrives by push, within milliseconds; what the stream missed (trimmed, expired, Redis
restarted) is found by key. An outcome may be reported twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from workers.broker.keys import outcome_key

logger = logging.getLogger(__name__)
BLOCK_MS = 1000
BATCH = 256  # outcomes per read
SWEEP_S = 2.0  # between polls by key
RETRY_S = 0.2


class ReplyReader:
    """Reports outcomes of one client.

    `on_reply(request_id, outcome_json)` is called on the loop; `pending` lists the ids without an outcome.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: str,
        on_reply: Callable[[str, bytes], None],
        pending: Callable[[], Iterable[str]],
    ):
        self._redis = client
        self._stream = stream
        self._on_reply = on_reply
        self._pending = pending

    async def listen(self) -> None:
        """Read the stream until cancelled."""
        last = "0"
        while True:
            try:
                answer: Any = await self._redis.xread({self._stream: last}, count=BATCH, block=BLOCK_MS)
            except (RedisError, OSError) as error:
                logger.warning("reply stream not read: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            for _, entries in answer:
                for entry, fields in entries:
                    last = entry
                    try:
                        self._on_reply(fields[b"id"].decode(), fields[b"outcome"])
                    except (LookupError, UnicodeDecodeError):
                        logger.error("invalid entry %s of the reply stream ignored", entry)
            await asyncio.sleep(0)  # a full stream must not starve the loop

    async def sweep(self) -> None:
        """Poll for the outcomes of all pending requests every `SWEEP_S` until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.poll(list(self._pending()))
            except (RedisError, OSError) as error:
                logger.warning("outcomes not polled: %s", error)

    async def poll(self, ids: Sequence[str]) -> None:
        """Read the outcomes of these requests by key once. Raises `RedisError` and `OSError`."""
        for first in range(0, len(ids), BATCH):
            part = ids[first : first + BATCH]
            found = await self._redis.mget([outcome_key(request_id) for request_id in part])
            for request_id, outcome in zip(part, found, strict=True):
                if outcome is not None:
                    self._on_reply(request_id, outcome)
