"""Finds the outcomes of the requests of one client: a blocking read of its reply stream, and regular checks.

Invariants: an outcome arrives by push, within milliseconds; what the stream missed (trimmed, expired, Redis
restarted) is found by the next check; so is a request that Redis has lost. An outcome may be reported twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from workers.broker.posting import check

logger = logging.getLogger(__name__)
BLOCK_MS = 1000
BATCH = 256  # outcomes per read
CHECK_S = 2.0  # between checks, at most
CHECKS_PER_LEASE = 3
RETRY_S = 0.2


class ReplyReader:
    """Reports outcomes of one client.

    `on_reply(request_id, outcome_json)` and `on_lost(request_id)` are called on the loop; `posted` lists the
    ids that Redis has accepted and that have no outcome.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: str,
        lease_s: float,
        posted: Callable[[], Iterable[str]],
        on_reply: Callable[[str, bytes], None],
        on_lost: Callable[[str], None],
    ):
        self._redis = client
        self._stream = stream
        self._every_s = min(CHECK_S, lease_s / CHECKS_PER_LEASE)
        self._posted = posted
        self._on_reply = on_reply
        self._on_lost = on_lost

    async def listen(self) -> None:
        """Read the stream until cancelled."""
        last = "0"
        while True:
            try:
                answer: Any = await self._redis.xread({self._stream: last}, count=BATCH, block=BLOCK_MS)
                for _, entries in answer:
                    ids = [fields.get(b"id", b"").decode(errors="replace") for _, fields in entries]
                    await self._report(ids)
                    last = entries[-1][0]  # after the report: a failed one is repeated
            except (RedisError, OSError) as error:
                logger.warning("reply stream not read: %s", error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(0)  # a full stream must not starve the loop

    async def run_checks(self) -> None:
        """Check all requests without an outcome regularly, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.check(list(self._posted()))
            except (RedisError, OSError) as error:
                logger.warning("outcomes not checked: %s", error)

    async def check(self, ids: Sequence[str]) -> None:
        """Report the outcomes of these requests, and those that are lost. Raises `RedisError`, `OSError`."""
        for first in range(0, len(ids), BATCH):
            for request_id in await self._report(ids[first : first + BATCH]):
                self._on_lost(request_id)

    async def _report(self, ids: Sequence[str]) -> list[str]:
        outcomes, lost = await check(self._redis, ids)
        for request_id, outcome in outcomes.items():
            self._on_reply(request_id, outcome)
        return lost
