"""The resume state of a rollout, in a file beside its text (`policy.resume.completions`), and its queue
client, which reuses outcomes in the ledger and reattaches to other requests.

Invariants:
- a file is saved completely or not at all;
- only the process that continues the rollout reads it, and only then, so that no process holds the state of
  all;
- it is removed with the texts of its group.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from policy.document import Document
from policy.resume.completions import file_of
from policy.scoring import Score
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import Message, Outcome, Priority, Request
from workers.storage.atomic import save

SUFFIX = ".continued.json"


class ResumeState(Message):
    """The state of a rollout with a complete text.

    `cut`: the checkpoint steps of all resumes since the text was written
    (see `policy.resume.plan.effective_versions`). `outcomes`: of its requests. With `document` and `score`
    set, nothing is left to do.
    """

    cut: tuple[int, ...]
    outcomes: tuple[Outcome, ...] = ()
    document: Document | None = None
    score: Score | None = None

    @classmethod
    def load(cls, run: Path, rollout_id: str) -> ResumeState:
        """Raises `FileNotFoundError`."""
        return cls.model_validate_json(file_of(run, rollout_id, SUFFIX).read_bytes())

    def save(self, run: Path, rollout_id: str) -> None:
        save(file_of(run, rollout_id, SUFFIX), self.model_dump_json())


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
