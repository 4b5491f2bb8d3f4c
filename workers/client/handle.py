"""The handle of a posted request, and the interface of a client that posts requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine
from typing import Any, Protocol

from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Priority, Request

logger = logging.getLogger(__name__)
CANCEL_S = 5.0


class RequestHandle:
    """A posted request. Several tasks may await its outcome, repeatedly.

    Made by `QueueClient.post`; only the client changes it.
    """

    def __init__(self, request: Request):
        self.request = request
        self.created = time.monotonic()
        self.was_posted = False  # confirmed by Redis, or proved by an outcome
        self.outcome_now: Outcome | None = None  # the outcome, if it is known
        self.timer: asyncio.TimerHandle | None = None
        self._posting: asyncio.Task[None] | None = None
        self._done = asyncio.Event()

    async def outcome(self) -> Outcome:
        """Wait for the outcome; `Failure(TIMEOUT)` soon after the deadline at the latest. Raises nothing but
        `CancelledError`.
        """
        await self._done.wait()
        assert self.outcome_now is not None
        return self.outcome_now

    def start_posting(self, posting: Coroutine[Any, Any, None]) -> None:
        """Run `posting`, which ends when Redis has the request, in a task that a cancelled caller leaves
        running.
        """
        self._posting = asyncio.create_task(posting)
        self._posting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def wait_posted(self) -> None:
        """Return when Redis has the request or the outcome is known. Raises what prevented posting."""
        assert self._posting is not None
        await asyncio.wait([self._posting])
        if not self._posting.cancelled():
            self._posting.result()
        elif self.outcome_now is None:
            raise InfrastructureFault(Cause.CANCELLED, "the client was closed before Redis had the request")

    def resolve(self, outcome: Outcome) -> None:
        self.outcome_now = outcome
        self._done.set()

    def stop(self) -> None:
        """Stop the timer and the posting."""
        if self.timer is not None:
            self.timer.cancel()
        if self._posting is not None and self._posting is not asyncio.current_task():
            self._posting.cancel()


class RequestClient(Protocol):
    """What code that posts requests needs of a client. `workers.client.client.QueueClient` documents the
    calls.
    """

    @property
    def wait_s(self) -> float:
        """How long a request may wait in its queue, seconds."""

    @property
    def priority(self) -> Priority:
        """Default priority of the requests that are made for this client."""

    async def post(self, request: Request) -> RequestHandle: ...
    async def cancel(self, request_id: str) -> None: ...


async def cancel_open(client: RequestClient, request_ids: Collection[str], owner: str) -> None:
    """Cancel the requests of `owner`. If Redis does not answer in `CANCEL_S` seconds, they run until their
    deadlines.
    """
    if not request_ids:
        return
    try:
        async with asyncio.timeout(CANCEL_S):
            await asyncio.gather(*(client.cancel(request_id) for request_id in request_ids))
    except (TimeoutError, InfrastructureFault) as error:
        logger.warning(
            "%d requests of %s were not cancelled and run until their deadlines: %s",
            len(request_ids),
            owner,
            error,
        )
