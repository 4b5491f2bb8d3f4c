"""The queue client of a resumed rollout: reuses outcomes in the ledger, and reattaches to other requests."""

from __future__ import annotations

from collections.abc import Iterable

from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import Outcome, Priority, Request


class ResumeClient:
    """A `workers.client.handle.RequestClient` of one rollout. `outcomes`: those in the ledger."""

    def __init__(self, client: QueueClient, outcomes: Iterable[Outcome]):
        self._client = client
        self._outcomes = {outcome.request_id: outcome for outcome in outcomes}

    @property
    def wait_s(self) -> float:
        return self._client.wait_s

    @property
    def priority(self) -> Priority:
        return self._client.priority

    async def post(self, request: Request) -> RequestHandle:
        """As `QueueClient.post`."""
        known = self._outcomes.get(request.request_id)
        if known is None:
            return await self._client.reattach(request)
        posted = RequestHandle(request)
        posted.resolve(known)
        return posted

    async def cancel(self, request_id: str) -> None:
        await self._client.cancel(request_id)
