"""Posts the requests of one client, many per round trip.

Invariants:
- Nothing here blocks. `publish` returns once Redis has the request.
- While Redis is down, posting is retried. A caller that gives up (its deadline) removes its request.
- A request whose queue is full waits here, and so does its caller; requests of other queues pass.
- A retry posts nothing twice (`workers.broker.posting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from workers.broker.posting import Post, Posted, post_async, prepare
from workers.errors import InfrastructureFault
from workers.messages import Request

logger = logging.getLogger(__name__)
BATCH = 64  # requests per call: some ms of encoding and posting at most
RETRY_S = (0.1, 0.2, 0.5, 1.0)
FULL_POLL_S = 0.1  # between tries for full queues


@dataclass(frozen=True)
class _Item:
    request: Request
    done: asyncio.Future[Posted]


class Publisher:
    """Posts the requests of one client; `run` is its task. `max_waiting`: limit of each queue."""

    def __init__(self, client: redis.asyncio.Redis, reply_to: str, max_waiting: int):
        self._redis = client
        self._reply_to = reply_to
        self._max_waiting = max_waiting
        self._items: list[_Item] = []
        self._full: dict[str, float] = {}  # kind -> when to try again, monotonic seconds
        self._wake = asyncio.Event()
        self.last_error = ""

    async def publish(self, request: Request) -> Posted:
        """Return when Redis has the request. Cancel the call to remove one that is not posted yet. Raises
        `InfrastructureFault(BAD_MESSAGE)` if it cannot be written or is too large.
        """
        item = _Item(request, asyncio.get_running_loop().create_future())
        self._items.append(item)
        self._wake.set()
        return await item.done

    async def run(self) -> None:
        """Post what is published until cancelled."""
        failures = 0
        while True:
            self._items = [item for item in self._items if not item.done.done()]
            batch = self._batch()
            if not batch:
                await self._wait()
                continue
            try:
                await self._send(batch)
            except (RedisError, OSError) as error:
                self.last_error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            else:
                failures = 0

    def _batch(self) -> list[_Item]:
        """The next items, oldest first; one at a time of a queue that was full until now."""
        batch: list[_Item] = []
        now, trials = time.monotonic(), set()
        for item in self._items:
            kind = item.request.kind
            if kind in self._full:
                if kind in trials or now < self._full[kind]:
                    continue
                trials.add(kind)
            batch.append(item)
            if len(batch) == BATCH:
                break
        return batch

    async def _wait(self) -> None:
        """Wait until something is published, or until it is time to try full queues."""
        self._wake.clear()
        if not self._items:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FULL_POLL_S):
                await self._wake.wait()

    async def _send(self, batch: list[_Item]) -> None:
        posts: list[tuple[_Item, Post]] = []
        now = time.time()
        for item in batch:
            if item.done.done():
                continue  # its caller gave up
            try:
                posts.append((item, prepare(item.request, self._reply_to, now)))
            except InfrastructureFault as error:
                item.done.set_exception(error)
        answers = await post_async(
            self._redis, [one for _, one in posts], self._max_waiting, keep_failures=True
        )
        for (item, one), posted in zip(posts, answers, strict=True):
            if posted.state == "full":
                self._wait_for_room(one.queue, posted.length)
                continue
            self._full.pop(one.queue, None)
            if not item.done.done():
                item.done.set_result(posted)

    def _wait_for_room(self, kind: str, length: int) -> None:
        self.last_error = f"queue {kind} holds {length} requests, queue.max_waiting is {self._max_waiting}"
        if kind not in self._full:
            logger.warning("%s; posting waits", self.last_error)
        self._full[kind] = time.monotonic() + FULL_POLL_S
