"""Posts a request again that has vanished from Redis: neither queued, nor held by a worker, and without an
outcome.

That happens when a worker takes a message off the list and dies before it has written down that it holds it
(frozen in its blocking read, say), or when Redis itself lost its last moments. Invariant: it is posted again
within a lease. Limits: what was missing in two looks in a row counts as lost, and a worker that was only
frozen in between runs it a second time (its outcome is still one); the search reads the queues concerned
inside Redis, some ms per 1,000 waiting messages; an id with characters that JSON escapes is not found there,
so such a request may run twice too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import redis.asyncio
from redis.exceptions import RedisError

from workers.broker.outcomes import find_lost
from workers.client.handle import RequestHandle
from workers.errors import InfrastructureFault
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
CHECKS_PER_LEASE = 3


class Reposter:
    """`run` is one task of the client; `publish` puts a request on its queue once more."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        settings: QueueSettings,
        pending: Callable[[], Iterable[RequestHandle]],
        publish: Callable[[RequestHandle], Awaitable[None]],
    ):
        self._redis = client
        self._lease_s = settings.lease_s
        self._pending = pending
        self._publish = publish
        self._missing: set[str] = set()  # in the last look, for the first time

    async def run(self) -> None:
        """Look every so often until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s / CHECKS_PER_LEASE)
            try:
                await self.look(time.monotonic())
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("search for lost requests: %s", error)

    async def look(self, now: float) -> None:
        """Look once, at `now` (monotonic seconds); post again what was missing in the look before too."""
        settled = self._lease_s / CHECKS_PER_LEASE
        known = {
            p.request.request_id: p for p in self._pending() if p.was_posted and now - p.created > settled
        }
        gone: set[str] = set()
        if known:
            queues = sorted({posted.request.kind for posted in known.values()})
            gone = await find_lost(self._redis, [(key, posted.tags) for key, posted in known.items()], queues)
        lost = gone & self._missing
        self._missing = gone - lost
        again = [self._again(known[request_id], settled) for request_id in known if request_id in lost]
        await asyncio.gather(*again)  # at once: one whose queue has no room must not hold up the others

    async def _again(self, posted: RequestHandle, patience_s: float) -> None:
        logger.warning("request %s vanished from Redis; posting it again", posted.request.request_id)
        try:
            async with asyncio.timeout(patience_s):
                await self._publish(posted)
        except (TimeoutError, InfrastructureFault) as error:  # found missing anew in the next two looks
            logger.warning("request %s is not posted again yet: %s", posted.request.request_id, error)
