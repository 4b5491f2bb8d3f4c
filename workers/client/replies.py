"""Learns of outcomes: one blocking read of the client's own reply stream, and a look at the keys now and
then.

Invariants: an outcome is told by push, within milliseconds; whatever the stream missed (trimmed, expired,
Redis restarted) the sweep finds by key. Telling one twice is allowed here; the client shows it once.
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
READ_AT_ONCE = 256
SWEEP_S = 2.0
RETRY_S = 0.2


class Replies:
    """`told(request_id, outcome_json)` is called on the loop; `pending` lists the ids that are still waited
    for.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: str,
        told: Callable[[str, bytes], None],
        pending: Callable[[], Iterable[str]],
    ):
        self._redis = client
        self._stream = stream
        self._told = told
        self._pending = pending

    async def listen(self) -> None:
        """Read the stream until cancelled."""
        last = "0"
        while True:
            try:
                answer: Any = await self._redis.xread(
                    {self._stream: last}, count=READ_AT_ONCE, block=BLOCK_MS
                )
            except (RedisError, OSError) as error:
                logger.warning("reply stream: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            for _, entries in answer:
                for entry, fields in entries:
                    last = entry
                    try:
                        self._told(fields[b"id"].decode(), fields[b"outcome"])
                    except (LookupError, UnicodeDecodeError):
                        logger.error("what stands in the reply stream at %s is no reply", entry)
            await asyncio.sleep(0)  # a full stream must not starve the loop

    async def sweep(self) -> None:
        """Look for outcomes by key every few seconds until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.look(list(self._pending()))
            except (RedisError, OSError) as error:
                logger.warning("sweep of outcomes: %s", error)

    async def look(self, ids: Sequence[str]) -> None:
        """Look once for the outcomes of these requests. Raises `RedisError` and `OSError`."""
        for first in range(0, len(ids), READ_AT_ONCE):
            part = ids[first : first + READ_AT_ONCE]
            found = await self._redis.mget([outcome_key(request_id) for request_id in part])
            for request_id, outcome in zip(part, found, strict=True):
                if outcome is not None:
                    self._told(request_id, outcome)
