"""Writes requests to their queues: Celery's message in kombu's envelope, many per round trip.

Invariants:
- Nothing here blocks. `publish` returns once Redis has the message.
- While Redis is down, sending is retried. A caller that gives up (its deadline) removes its message.
- A request whose queue is full waits here, and so does its caller; requests of other queues pass. Many
  clients may each exceed the limit by one batch.
- A retry may duplicate a message, which does no harm: one request id has one outcome.

A test compares the wire format with that of Celery's `apply_async`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from celery import Celery
from redis.exceptions import RedisError

from workers.broker.dead_letters import MAX_MESSAGE_BYTES, payload_summary
from workers.errors import Cause, InfrastructureFault
from workers.messages import Request
from workers.queues import QUEUES

logger = logging.getLogger(__name__)
BATCH = 64  # messages per pipeline: some 10 ms of encoding and sending at most
DEADLINE_GRACE_S = 2.0  # the TIMEOUT outcome of a worker may arrive so much after the deadline
RETRY_S = (0.1, 0.2, 0.5, 1.0)
FULL_POLL_S = 0.1  # between polls of full queues

_AMQP = Celery("llmi-producer", set_as_current=False).amqp


def encode(request: Request, *, tag: str, reply_to: str) -> str:
    """The queue entry of one request. `tag`: the delivery tag under which a worker will hold it.

    Raises `InfrastructureFault(BAD_MESSAGE)`, and nothing else, if it cannot be encoded or is too large.
    """
    try:
        entry = _envelope(request, tag, reply_to)
    except Exception as error:  # of any kind: the batch has other requests too
        why = f"it cannot be written as a message: {type(error).__name__}: {error}"
        raise InfrastructureFault(Cause.BAD_MESSAGE, why[:300]) from error
    if len(entry) > MAX_MESSAGE_BYTES:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE, f"a message of {len(entry)} bytes; at most {MAX_MESSAGE_BYTES} are allowed"
        )
    return entry


def _envelope(request: Request, tag: str, reply_to: str) -> str:
    now = time.time()
    limit_s = max(1.0, request.job_deadline(now) - now + DEADLINE_GRACE_S)
    task = _AMQP.as_task_v2(
        request.request_id,
        f"llmi.{request.kind}",
        [request.model_dump(mode="json")],
        {},
        argsrepr=payload_summary(request),
        kwargsrepr="",
        time_limit=limit_s,
    )
    envelope = {
        "body": base64.b64encode(_utf8(task.body)).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**task.headers, "posted": time.time()},
        "properties": {
            "correlation_id": request.request_id,
            "reply_to": reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUES[request.kind].name},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }
    return json.dumps(envelope)  # ASCII, since a model may write a lone surrogate


def _utf8(body: Any) -> bytes:
    """JSON with at most 4 bytes a character, not the 12 of an escaped pair, so that the longest tag fits."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can represent
        return json.dumps(body).encode()


@dataclass(frozen=True)
class _Item:
    request: Request
    tag: str
    done: asyncio.Future[None]


class Publisher:
    """Sends the requests of one client; `run` is its task. `max_waiting`: limit of each queue."""

    def __init__(self, client: redis.asyncio.Redis, reply_to: str, max_waiting: int):
        self._redis = client
        self._reply_to = reply_to
        self._max_waiting = max_waiting
        self._items: list[_Item] = []
        self._lengths: dict[str, int] = {}  # of the queues, by kind, as last read
        self._poll_at = 0.0  # monotonic seconds
        self._wake = asyncio.Event()
        self.last_error = ""

    async def publish(self, request: Request, tag: str) -> None:
        """Return when Redis has the message. Cancel the call to remove a message that is not sent yet."""
        item = _Item(request, tag, asyncio.get_running_loop().create_future())
        self._items.append(item)
        self._wake.set()
        await item.done

    async def run(self) -> None:
        """Send what is published until cancelled."""
        failures = 0
        while True:
            self._items = [item for item in self._items if not item.done.done()]
            try:
                await self._poll_full_queues()
                batch = self._batch()
                if not batch:
                    await self._wait()
                    continue
                await self._send(batch)
            except (RedisError, OSError) as error:
                self.last_error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            else:
                failures = 0

    def _batch(self) -> list[_Item]:
        """The next items with room in their queues, oldest first."""
        batch: list[_Item] = []
        room = {kind: self._max_waiting - length for kind, length in self._lengths.items()}
        for item in self._items:
            left = room.get(item.request.kind, self._max_waiting)
            if left > 0:
                room[item.request.kind] = left - 1
                batch.append(item)
            if len(batch) == BATCH:
                break
        return batch

    async def _wait(self) -> None:
        """Wait until something is published, or until it is time to poll full queues."""
        self._wake.clear()
        if not self._items:
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FULL_POLL_S):
                await self._wake.wait()

    async def _poll_full_queues(self) -> None:
        full = [kind for kind, length in self._lengths.items() if length >= self._max_waiting]
        if not full or time.monotonic() < self._poll_at:
            return
        pipeline: Any = self._redis.pipeline(transaction=False)
        for kind in full:
            pipeline.llen(QUEUES[kind].name)
        self._lengths |= dict(zip(full, await pipeline.execute(), strict=True))
        self._poll_at = time.monotonic() + FULL_POLL_S

    def _sent(self, kind: str, length: int) -> None:
        if length >= self._max_waiting > self._lengths.get(kind, 0):
            self.last_error = (
                f"queue {kind} holds {length} requests, queue.max_waiting is {self._max_waiting}"
            )
            logger.warning("%s; posting waits", self.last_error)
        self._lengths[kind] = length

    async def _send(self, batch: list[_Item]) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        sent = []
        for item in batch:
            if item.done.done():
                continue  # its caller gave up during the poll
            try:
                message = encode(item.request, tag=item.tag, reply_to=self._reply_to)
            except InfrastructureFault as error:
                item.done.set_exception(error)
            else:
                pipeline.lpush(QUEUES[item.request.kind].name, message)
                sent.append(item)
        replies = await pipeline.execute(raise_on_error=False)
        for item, reply in zip(sent, replies, strict=True):
            if isinstance(reply, Exception):
                self.last_error = f"{type(reply).__name__}: {reply}"
                continue
            self._sent(item.request.kind, reply)  # LPUSH returns the length of the queue
            if not item.done.done():
                item.done.set_result(None)
        if any(isinstance(reply, Exception) for reply in replies):
            raise RedisError(self.last_error)
