"""A request on its way, as its poster sees it: a handle whose outcome may be awaited by several, and
repeatedly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Request


class RequestHandle:
    """Made by `QueueClient.post`, which alone writes to it."""

    def __init__(self, request: Request):
        self.request = request
        self.created = time.monotonic()
        self.was_posted = False  # Redis has confirmed it, or its outcome has proved it
        self.outcome_now: Outcome | None = None  # without waiting
        self.tags: list[str] = []  # delivery tags, one per posting
        self.timer: asyncio.TimerHandle | None = None
        self._acceptance: asyncio.Task[None] | None = None
        self._done = asyncio.Event()

    async def outcome(self) -> Outcome:
        """The outcome. Never raises but `CancelledError`; a `Failure(TIMEOUT)` soon after the deadline at the
        latest.
        """
        await self._done.wait()
        assert self.outcome_now is not None
        return self.outcome_now

    def accept(self, acceptance: Coroutine[Any, Any, None]) -> None:
        """Run `acceptance`, which ends when Redis has the request, apart from the poster: its end is not
        ours.
        """
        self._acceptance = asyncio.create_task(acceptance)
        self._acceptance.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def accepted(self) -> None:
        """Returns when Redis has the request or the outcome is known; raises what prevented posting."""
        assert self._acceptance is not None
        await asyncio.wait([self._acceptance])
        if not self._acceptance.cancelled():
            self._acceptance.result()
        elif self.outcome_now is None:
            raise InfrastructureFault(Cause.CANCELLED, "the client was closed before Redis had the request")

    def resolve(self, outcome: Outcome) -> None:
        self.outcome_now = outcome
        self._done.set()

    def settle(self) -> None:
        """Nothing more is to happen to this request: stop its timer and its posting."""
        if self.timer is not None:
            self.timer.cancel()
        if self._acceptance is not None and self._acceptance is not asyncio.current_task():
            self._acceptance.cancel()


class RequestClient(Protocol):
    """What a poster of requests needs; `workers.client.client.QueueClient` is one, and says what each call
    does.
    """

    @property
    def wait_s(self) -> float:
        """How long a request may wait in its queue, seconds."""

    async def post(self, request: Request) -> RequestHandle: ...
    async def cancel(self, request_id: str) -> None: ...
