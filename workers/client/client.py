"""The async client of the queues: post a request, await its outcome. Never blocks the loop.

Invariants: every posted request gets exactly one outcome, at its deadline at the latest; `on_posted` and
`on_outcome` are called once each per posted request, in this order, on the loop; a request that Redis has
lost is posted again. One client belongs to one event loop.
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

from workers.broker.keys import outcome_key, replies_key
from workers.broker.outcomes import commit_cancelled
from workers.broker.posting import post_async, prepare
from workers.client.handle import RequestHandle
from workers.client.publisher import Publisher
from workers.client.replies import RETRY_S, ReplyReader
from workers.errors import Cause, InfrastructureFault
from workers.messages import NORMAL, Outcome, Priority, Request
from workers.queues import QUEUES
from workers.redis_client import COMMAND_TIMEOUT_S, connect_redis_async
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
STOP_POLL_S = 0.1
DEADLINE_GRACE_S = 2.0  # the TIMEOUT outcome of a worker may arrive so much after the deadline
NO_LIMIT = 1 << 31
SHORTEN_S = 1.0
CANCEL_BATCH = 64  # each takes a connection
FINAL_POLL_S = 1.0  # limit of the poll for an outcome at the deadline


class QueueClient:
    """Use as an async context manager, or call `start` and `close`.

    `priority`: default priority of the requests that are made for this client.
    """

    def __init__(
        self,
        settings: QueueSettings,
        *,
        priority: Priority = NORMAL,
        on_posted: Callable[[Request], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ):
        self.priority = priority
        self._settings = settings
        self._on_posted = on_posted
        self._on_outcome = on_outcome
        self._pending: dict[str, RequestHandle] = {}
        self._due: list[RequestHandle] = []  # past their deadlines, without an outcome
        self._stream = replies_key(uuid.uuid4().hex)
        self._reposting: set[str] = set()
        self._recorded: list[str] = []  # requests whose outcomes `on_outcome` has recorded
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the connections. Does not fail when Redis is down; `post` then fails at the deadline."""
        self._redis = connect_redis_async(self._settings.url, keep_open=True)
        self._publisher = Publisher(self._redis, self._stream, self._settings.max_waiting)
        self._replies = ReplyReader(
            self._redis, self._stream, self._settings.lease_s, self._posted, self._on_reply, self._on_lost
        )
        services = (self._publisher.run, self._replies.listen, self._replies.run_checks, self._shorten)
        self._tasks = {asyncio.create_task(_supervise(service)) for service in services}

    async def close(self) -> None:
        """Cancel what is pending, so that no worker starts it, delete the reply stream and close the
        connections.
        """
        pending = list(self._pending.values())
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                for first in range(0, len(pending), CANCEL_BATCH):
                    batch = pending[first : first + CANCEL_BATCH]
                    done = await asyncio.gather(*map(self._commit_cancelled, batch), return_exceptions=True)
                    if errors := [error for error in done if isinstance(error, BaseException)]:
                        logger.warning("%d requests stay queued at close: %s", len(errors), errors[0])
        except TimeoutError as error:
            logger.warning("requests stay queued at close: %s", error)
        for handle in pending:
            if handle.was_posted:
                self._resolve(
                    handle, Outcome.failed(handle.request, Cause.CANCELLED, "the client was closed")
                )
            else:
                self._drop(handle)
        running, self._tasks = self._tasks, set()
        while running:  # repeated: redis-py may swallow a cancellation that coincides with its own time-out
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=STOP_POLL_S)
        with contextlib.suppress(RedisError, OSError):  # it expires
            await self._redis.delete(self._stream)
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
        """Number of requests without an outcome."""
        return len(self._pending)

    def pending(self) -> list[tuple[Request, float]]:
        """Every request without an outcome, with the seconds since it was posted; oldest first."""
        now = time.monotonic()
        return [(handle.request, now - handle.created) for handle in self._pending.values()]

    async def post(self, request: Request) -> RequestHandle:
        """Post a request; returns once it is in Redis. Waits while its queue is full.

        Posting an id that is still pending returns the same handle. A cancelled call leaves the request
        posted; see `cancel`.

        Raises `ValueError` for a kind without a queue, `InfrastructureFault(PROVIDER_DOWN)` if Redis was not
        reached or the queue had no room before the deadline, `InfrastructureFault(BAD_MESSAGE)` if the
        request is too large, `InfrastructureFault(CANCELLED)` if the client is closed meanwhile.
        """
        return await self._start_request(request, self._publish)

    async def reattach(self, request: Request) -> RequestHandle:
        """As `post`, for a request that a client that died may have posted.

        An outcome that the dead client would have got counts: a success, or a failure of the model. An
        infrastructure failure does not (the deadline passed while no client was there, for example): the
        request is posted again. A queued request gets the new deadline and this client's reply stream; a
        running one keeps its deadline. One that its client cancelled may still run: this call waits until its
        worker has ended it, and uses its success or posts it again.
        """
        return await self._start_request(request, self._reattach)

    async def cancel(self, request_id: str) -> None:
        """Cancel a queued or running request: its outcome becomes CANCELLED, unless it has one. Unknown ids
        are ignored.
        """
        handle = self._pending.get(request_id)
        if handle is None:
            return
        try:
            visible = await self._commit_cancelled(handle)
        except (RedisError, OSError) as error:
            logger.warning("cancellation of %s not stored yet: %s", request_id, error)
            self._spawn(self._retry_cancel(handle))
            self._resolve(handle, Outcome.failed(handle.request, Cause.CANCELLED, "cancelled"))
        else:
            self._on_reply(request_id, visible)

    async def _retry_cancel(self, handle: RequestHandle) -> None:
        """Store the cancellation once Redis answers, so that no worker runs the request then."""
        while time.time() < handle.request.deadline:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(RedisError, OSError):
                await self._commit_cancelled(handle)
                return

    async def _commit_cancelled(self, handle: RequestHandle) -> bytes:
        outcome = Outcome.failed(handle.request, Cause.CANCELLED, "cancelled")
        return await commit_cancelled(self._redis, outcome, self._settings.result_ttl_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task that ends with the client at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Posting

    async def _start_request(
        self, request: Request, send: Callable[[RequestHandle], Awaitable[None]]
    ) -> RequestHandle:
        if request.kind not in QUEUES:
            raise ValueError(f"kind {request.kind!r} has no queue; there are {', '.join(QUEUES)}")
        if not self._tasks:
            raise RuntimeError("the client is not started")
        handle = self._pending.get(request.request_id)
        if handle is None:
            handle = RequestHandle(request)
            self._pending[request.request_id] = handle
            delay_s = max(0.0, request.deadline - time.time()) + DEADLINE_GRACE_S
            handle.timer = asyncio.get_running_loop().call_later(delay_s, self._expire, handle)
            handle.start_posting(self._post(handle, send))
        await handle.wait_posted()
        return handle

    async def _post(self, handle: RequestHandle, send: Callable[[RequestHandle], Awaitable[None]]) -> None:
        timeout_s = max(1.0, handle.request.deadline - time.time())
        try:
            async with asyncio.timeout(timeout_s):
                await send(handle)
        except TimeoutError as error:
            if not handle.was_posted:
                self._drop(handle)
                detail = self._publisher.last_error or "no answer"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"Redis takes no request: {detail}") from error
        except InfrastructureFault:
            self._drop(handle)
            raise
        else:
            self._confirm(handle)

    async def _publish(self, handle: RequestHandle) -> None:
        posted = await self._publisher.publish(handle.request)
        if posted.state == "done":
            self._on_reply(handle.request.request_id, posted.outcome)

    async def _reattach(self, handle: RequestHandle) -> None:
        """Reattach to the request, once Redis answers and no worker is about to end it as cancelled."""
        request = handle.request
        while True:
            try:
                one = prepare(request, self._stream, time.time())
                (posted,) = await post_async(self._redis, [one], NO_LIMIT, keep_failures=False)
                if posted.state != "cancelled":
                    break
            except (RedisError, OSError) as error:
                logger.warning("%s not reattached yet: %s", request.request_id, error)
            await asyncio.sleep(RETRY_S)
        if posted.state == "done":
            self._on_reply(request.request_id, posted.outcome)

    async def _shorten(self) -> None:
        """Let outcomes that `on_outcome` has recorded expire soon, so that Redis stays small."""
        while True:
            await asyncio.sleep(SHORTEN_S)
            ids, self._recorded = self._recorded, []
            pipeline = self._redis.pipeline(transaction=False)
            for request_id in ids:
                pipeline.expire(outcome_key(request_id), self._settings.recorded_ttl_s, lt=True)
            try:
                await pipeline.execute()
            except (RedisError, OSError) as error:  # they expire later
                logger.debug("outcomes not shortened: %s", error)

    def _posted(self) -> list[str]:
        return [request_id for request_id, handle in self._pending.items() if handle.was_posted]

    def _on_lost(self, request_id: str) -> None:
        if request_id not in self._reposting and (handle := self._pending.get(request_id)) is not None:
            self._reposting.add(request_id)
            self._spawn(self._repost(handle))

    async def _repost(self, handle: RequestHandle) -> None:
        """Post a request that Redis has lost; ends at its deadline."""
        request_id = handle.request.request_id
        try:
            async with asyncio.timeout(max(0.0, handle.request.deadline - time.time())):
                await self._publish(handle)
        except (TimeoutError, InfrastructureFault) as error:
            logger.warning("lost request %s not reposted: %s", request_id, error)
        else:
            logger.warning("reposted lost request %s", request_id)
        finally:
            self._reposting.discard(request_id)

    # Outcomes

    def _on_reply(self, request_id: str, outcome_json: bytes) -> None:
        handle = self._pending.get(request_id)
        if handle is None:
            return  # a duplicate, or the outcome of a request that timed out here
        try:
            outcome = Outcome.model_validate_json(outcome_json)
        except ValidationError as error:
            logger.error("outcome of %s is invalid: %s", request_id, error)
            outcome = Outcome.failed(
                handle.request, Cause.BAD_MESSAGE, "the worker's outcome does not validate"
            )
        self._resolve(handle, outcome)

    def _expire(self, handle: RequestHandle) -> None:
        self._due.append(handle)
        if len(self._due) == 1:
            self._spawn(self._final_poll())

    async def _final_poll(self) -> None:
        """Resolve expired requests, after a last poll for their outcomes.

        In a process that was suspended, timers fire before the reply stream is read.
        """
        due, self._due = self._due, []
        try:
            async with asyncio.timeout(FINAL_POLL_S):
                await self._replies.check([handle.request.request_id for handle in due])
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("outcomes of %d expired requests not polled: %s", len(due), error)
        finally:
            for handle in due:
                late = Outcome.failed(handle.request, Cause.TIMEOUT, "no outcome before the deadline")
                self._resolve(handle, late)

    def _resolve(self, handle: RequestHandle, outcome: Outcome) -> None:
        if handle.outcome_now is not None:
            return
        self._confirm(handle)  # an outcome may overtake the confirmation that the request was posted
        self._drop(handle)
        handle.resolve(outcome)
        self._call(self._on_outcome, outcome)
        if self._on_outcome is not None:
            self._recorded.append(outcome.request_id)

    def _confirm(self, handle: RequestHandle) -> None:
        if not handle.was_posted:
            handle.was_posted = True
            self._call(self._on_posted, handle.request)

    def _drop(self, handle: RequestHandle) -> None:
        self._pending.pop(handle.request.request_id, None)
        handle.stop()

    @staticmethod
    def _call(hook: Callable[[Any], None] | None, event: Request | Outcome) -> None:
        if hook is not None:
            try:
                hook(event)
            except Exception:  # a caller's hook must not end the task that resolves all outcomes
                logger.exception("a hook of the queue client failed on %s", event.request_id)


async def _supervise(service: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service until cancelled, and restart it when it fails: every request depends on it."""
    while True:
        try:
            await service()
        except Exception:  # expected errors are handled inside
            logger.exception("a service of the queue client failed and is restarted")
            await asyncio.sleep(RETRY_S)
