"""What differs when a rollout is a document of an evaluation (`train.evaluate_every`): priority and time.

Invariants:
- its requests and its generation wait for those of training, so its wait is nobody's fault. A text that runs
  out of time is masked, never cut and scored;
- a process runs few of them at once (`TrainSettings.evaluated_at_once`); the others have not started.
"""

from __future__ import annotations

from policy.rollout.rollout import Limits
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import LOW, Priority, Request

AFTER_TRAINING = 1  # vLLM's priority; rollouts of training have 0, which is served first


def evaluation_limits(response_tokens: int, timeout_s: float) -> Limits:
    """The limits of such a document. `timeout_s`: `train.evaluate_timeout_s`."""
    return Limits(response_tokens, timeout_s, cut=False, setting="train.evaluate_timeout_s")


class LowPriority:
    """A `workers.client.handle.RequestClient` with requests that those of training overtake."""

    priority: Priority = LOW

    def __init__(self, client: QueueClient):
        self._client = client

    @property
    def wait_s(self) -> float:
        return self._client.wait_s

    async def post(self, request: Request) -> RequestHandle:
        """As `QueueClient.post`."""
        return await self._client.post(request)

    async def cancel(self, request_id: str) -> None:
        await self._client.cancel(request_id)
