"""The async client of the queues: post a request, await its outcome by push. Never blocks the loop.

Invariants: every posted request gets exactly one visible outcome, at its deadline at the latest; `on_posted`
and `on_outcome` are called once each per posted request, in this order, on the loop; a request that has
vanished from Redis is posted again. One client belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

from pydantic import ValidationError
from redis.exceptions import RedisError

from workers.broker.keys import replies_key
from workers.broker.outcomes import commit_async
from workers.client.cancellation import Canceller
from workers.client.handle import RequestHandle
from workers.client.publisher import DEADLINE_GRACE_S, Publisher
from workers.client.reattach import reattach
from workers.client.replies import RETRY_S, Replies
from workers.client.repost import Reposter
from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Request
from workers.queues import QUEUES
from workers.redis_client import COMMAND_TIMEOUT_S, connect_redis_async
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
STOP_POLL_S = 0.1
CANCELLED_AT_ONCE = 64  # each takes a connection
LAST_LOOK_S = 1.0  # at its deadline, for an outcome that was not heard of


class QueueClient:
    """Use as an async context manager, or `start` and `close`."""

    def __init__(
        self,
        settings: QueueSettings,
        *,
        on_posted: Callable[[Request], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ):
        self._settings = settings
        self._on_posted = on_posted
        self._on_outcome = on_outcome
        self._pending: dict[str, RequestHandle] = {}
        self._due: list[RequestHandle] = []  # at their deadlines, without an outcome
        self._stream = replies_key(uuid.uuid4().hex)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the connections. Does not fail when Redis is away: `post` will, at the request's deadline."""
        self._redis = connect_redis_async(self._settings.url, keep_open=True)
        self._publisher = Publisher(self._redis, self._stream, self._settings.max_waiting)
        self._replies = Replies(self._redis, self._stream, self._told, lambda: self._pending)
        self._canceller = Canceller(self._settings)
        self._reposter = Reposter(self._redis, self._settings, lambda: self._pending.values(), self._publish)
        work = (
            self._publisher.run,
            self._replies.listen,
            self._replies.sweep,
            self._reposter.run,
            self._canceller.run,
        )
        self._tasks = {asyncio.create_task(_kept(part)) for part in work}

    async def close(self) -> None:
        """End. What is still pending becomes CANCELLED, and is not started by any worker any more."""
        pending = list(self._pending.values())
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                for first in range(0, len(pending), CANCELLED_AT_ONCE):
                    some = pending[first : first + CANCELLED_AT_ONCE]
                    done = await asyncio.gather(*map(self._commit_cancelled, some), return_exceptions=True)
                    if left := [error for error in done if isinstance(error, BaseException)]:
                        logger.warning("%d requests are left in the queue at close: %s", len(left), left[0])
        except TimeoutError as error:
            logger.warning("requests are left in the queue at close: %s", error)
        for posted in pending:
            if posted.was_posted:
                self._resolve(
                    posted, Outcome.failed(posted.request, Cause.CANCELLED, "the client was closed")
                )
            else:
                self._forget(posted)
        running, self._tasks = self._tasks, set()
        while running:  # more than once: redis-py may swallow a cancellation that meets its own time-out
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=STOP_POLL_S)
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def wait_s(self) -> float:
        """How long a request may wait in its queue, seconds: `queue.wait_s`."""
        return self._settings.wait_s

    @property
    def in_flight(self) -> int:
        """How many requests wait for their outcome."""
        return len(self._pending)

    def pending(self) -> list[tuple[Request, float]]:
        """Every request without an outcome, with the seconds since it was posted; oldest first."""
        now = time.monotonic()
        return [(posted.request, now - posted.created) for posted in self._pending.values()]

    async def post(self, request: Request) -> RequestHandle:
        """Returns once the request is in Redis, which is when its queue has room. Posting an id that is still
        pending returns the same `RequestHandle`.

        Raises `ValueError` for a kind that has no queue, `InfrastructureFault(PROVIDER_DOWN)` when Redis
        could not be reached or the queue had no room before the request's deadline,
        `InfrastructureFault(BAD_MESSAGE)` for one that is too large, `InfrastructureFault(CANCELLED)` when
        the client is closed meanwhile. A caller that is cancelled
        leaves the request posted; see `cancel`.
        """
        return await self._begin(request, self._publish)

    async def reattach(self, request: Request) -> RequestHandle:
        """As `post`, of a request that a poster may have posted before it died: joined where it is, or told
        its outcome at once (see `workers.client.reattach`).
        """
        return await self._begin(request, self._join)

    async def _begin(
        self, request: Request, way: Callable[[RequestHandle], Awaitable[None]]
    ) -> RequestHandle:
        if request.kind not in QUEUES:
            raise ValueError(f"kind {request.kind!r} has no queue; there are {', '.join(QUEUES)}")
        if not self._tasks:
            raise RuntimeError("the client is not started")
        posted = self._pending.get(request.request_id)
        if posted is None:
            posted = RequestHandle(request)
            self._pending[request.request_id] = posted
            delay_s = max(0.0, request.deadline - time.time()) + DEADLINE_GRACE_S
            posted.timer = asyncio.get_running_loop().call_later(delay_s, self._expire, posted)
            posted.accept(self._accept(posted, way))
        await posted.accepted()
        return posted

    async def cancel(self, request_id: str) -> None:
        """End a queued or running request: its outcome becomes CANCELLED, unless it has one. Unknown ids are
        ignored.
        """
        posted = self._pending.get(request_id)
        if posted is None:
            return
        try:
            visible = await self._commit_cancelled(posted)
        except (RedisError, OSError) as error:
            logger.warning("cancellation of %s not stored yet: %s", request_id, error)
            self._do(self._cancel_later(posted))
            self._resolve(posted, Outcome.failed(posted.request, Cause.CANCELLED, "cancelled"))
        else:
            self._told(request_id, visible)
        self._canceller.notify(request_id)

    async def _cancel_later(self, posted: RequestHandle) -> None:
        """Else a worker might take it up once Redis serves again."""
        while time.time() < posted.request.deadline:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(RedisError, OSError):
                await self._commit_cancelled(posted)
                return

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """In a task that ends with the client, if not before."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _commit_cancelled(self, posted: RequestHandle) -> bytes:
        outcome = Outcome.failed(posted.request, Cause.CANCELLED, "cancelled")
        return await commit_async(self._redis, outcome, "", self._settings.result_ttl_s)

    async def _accept(self, posted: RequestHandle, way: Callable[[RequestHandle], Awaitable[None]]) -> None:
        patience_s = max(1.0, posted.request.deadline - time.time())
        try:
            async with asyncio.timeout(patience_s):
                await way(posted)
        except TimeoutError as error:
            if not posted.was_posted:
                self._forget(posted)
                detail = self._publisher.last_error or "no answer"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"Redis took no request: {detail}") from error
        except InfrastructureFault:
            self._forget(posted)
            raise
        else:
            self._confirm(posted)

    async def _publish(self, posted: RequestHandle) -> None:
        posted.tags.append(uuid.uuid4().hex)
        await self._publisher.publish(posted.request, posted.tags[-1])

    async def _join(self, posted: RequestHandle) -> None:
        """Take the request up, once Redis answers."""
        request, tag = posted.request, uuid.uuid4().hex
        posted.tags.append(tag)
        while True:
            try:
                state, found = await reattach(self._redis, request, tag=tag, reply_to=self._stream)
                break
            except (RedisError, OSError) as error:
                logger.warning("%s is not taken up yet: %s", request.request_id, error)
                await asyncio.sleep(RETRY_S)
        if state == "running":
            posted.tags.append(found.decode())
        elif state == "done":
            self._told(request.request_id, found)

    def _told(self, request_id: str, outcome_json: bytes) -> None:
        posted = self._pending.get(request_id)
        if posted is None:
            return  # a duplicate, or news of a request that timed out here
        try:
            outcome = Outcome.model_validate_json(outcome_json)
        except ValidationError as error:
            logger.error("outcome of %s is unreadable: %s", request_id, error)
            outcome = Outcome.failed(
                posted.request, Cause.BAD_MESSAGE, "the worker's outcome does not validate"
            )
        self._resolve(posted, outcome)

    def _expire(self, posted: RequestHandle) -> None:
        self._due.append(posted)
        if len(self._due) == 1:
            self._do(self._last_look())

    async def _last_look(self) -> None:
        """A process that was stopped for long finds its timers due before it has read what it was told."""
        due, self._due = self._due, []
        try:
            async with asyncio.timeout(LAST_LOOK_S):
                await self._replies.look([posted.request.request_id for posted in due])
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("no last look for the outcomes of %d requests: %s", len(due), error)
        finally:
            for posted in due:
                late = Outcome.failed(posted.request, Cause.TIMEOUT, "no outcome before the deadline")
                self._resolve(posted, late)

    def _resolve(self, posted: RequestHandle, outcome: Outcome) -> None:
        if posted.outcome_now is not None:
            return
        self._confirm(posted)  # an outcome may overtake the confirmation that the request was posted
        self._forget(posted)
        posted.resolve(outcome)
        self._notify(self._on_outcome, outcome)

    def _confirm(self, posted: RequestHandle) -> None:
        if not posted.was_posted:
            posted.was_posted = True
            self._notify(self._on_posted, posted.request)

    def _forget(self, posted: RequestHandle) -> None:
        self._pending.pop(posted.request.request_id, None)
        posted.settle()

    @staticmethod
    def _notify(hook: Callable[[Any], None] | None, news: Request | Outcome) -> None:
        if hook is not None:
            try:
                hook(news)
            except Exception:  # a caller's hook must not end the loop that resolves everybody's outcomes
                logger.exception("a hook of the queue client failed on %s", news.request_id)


async def _kept(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it until cancelled, whatever it meets: every request of this process depends on it."""
    while True:
        try:
            await part()
        except Exception:  # what each can foresee it handles by itself
            logger.exception("a part of the queue client failed, and begins anew")
            await asyncio.sleep(RETRY_S)
