"""Posts lost messages again: those that are neither queued nor held by a worker, without an outcome.

A message is lost when a worker pops it and dies before it has recorded the delivery, or when Redis lost its
last writes.

Invariant: a lost message is reposted within a lease. Limits: a message that was missing in two checks in a
row counts as lost; a worker that was only frozen in between runs it a second time (there is still one
outcome). A check scans the queues inside Redis, some ms per 1,000 queued messages. A request id with
characters that JSON escapes is not found there, and may run twice too.
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
        self._every_s = settings.lease_s / CHECKS_PER_LEASE
        self._pending = pending
        self._publish = publish
        self._missing: set[str] = set()  # for the first time, in the last check

    async def run(self) -> None:
        """Check regularly until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.check(time.monotonic())
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("lost messages not checked: %s", error)

    async def check(self, now: float) -> None:
        """Check once, at `now` (monotonic seconds), and repost what was missing in the last check too."""
        known = {
            handle.request.request_id: handle
            for handle in self._pending()
            if handle.was_posted and now - handle.created > self._every_s
        }
        missing: set[str] = set()
        if known:
            queues = sorted({handle.request.kind for handle in known.values()})
            tags = [(request_id, handle.tags) for request_id, handle in known.items()]
            missing = await find_lost(self._redis, tags, queues)
        lost = missing & self._missing
        self._missing = missing - lost
        # All at once: a request whose queue is full must not delay the others.
        await asyncio.gather(*(self._repost(known[one]) for one in known if one in lost))

    async def _repost(self, handle: RequestHandle) -> None:
        try:
            async with asyncio.timeout(self._every_s):
                await self._publish(handle)
        except (TimeoutError, InfrastructureFault) as error:  # the next two checks find it again
            logger.warning("lost request %s not reposted yet: %s", handle.request.request_id, error)
        else:
            logger.warning("reposted lost request %s", handle.request.request_id)
