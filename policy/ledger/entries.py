"""The entries of the run ledger: one class per event, one JSON object per line.

Invariants:
- `type` identifies the class in the file;
- a value of `type` and a field are never renamed or removed: a resumed run reads files of older versions;
- times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator

from policy.document import Document, Task
from policy.scoring import Score
from workers.messages import Message, Outcome, Request

LEDGER = "ledger"
# `evaluated`: a document of an evaluation while training; the others are of rollouts that it trains on.
State = Literal["trained", "masked", "stale", "cancelled", "failed", "evaluated"]


class _Event(Message):
    type: str
    time: float


class Started(_Event):
    """A rollout started. `step`: the trainer's step that submitted it."""

    type: Literal["started"] = "started"
    rollout_id: str
    task: Task
    step: int = 0


class Posted(_Event):
    """A request was posted to the queue."""

    type: Literal["posted"] = "posted"
    request: Request

    @field_validator("request", mode="before")
    @classmethod
    def _of_version_1(cls, request: Any) -> Any:
        """Version 1 had the same fields, without a priority and a trace."""
        if isinstance(request, dict) and request.get("version") == 1:
            return request | {"version": 2}
        return request


class RequestEnded(_Event):
    """A request has its outcome."""

    type: Literal["ended"] = "ended"
    outcome: Outcome


Span = tuple[float, float]  # start, end; Unix seconds


class TextGenerated(_Event):
    """A rollout's text is complete. `segments`: start and end of each call of the generator."""

    type: Literal["wrote"] = "wrote"
    rollout_id: str
    segments: tuple[Span, ...]


class TrainerWaited(_Event):
    """The trainer waited for the groups of `step`, from `began` to `time`."""

    type: Literal["waited"] = "waited"
    began: float
    step: int


class Paused(_Event):
    """The trainer submits no prompts, because providers are down.

    `providers`: one text each. `since`: when the first of them started to fail.
    """

    type: Literal["paused"] = "paused"
    providers: tuple[str, ...]
    since: float


class PauseEnded(_Event):
    """The trainer submits prompts again."""

    type: Literal["pause_ended"] = "pause_ended"


class Scored(_Event):
    """A finished document and its score.

    `versions`: trainer steps of the oldest and newest weights that wrote it.
    """

    type: Literal["scored"] = "scored"
    document: Document
    score: Score
    tokens: int
    versions: tuple[int, int] | None = None


class RolloutEnded(_Event):
    """A rollout has its terminal state. `step`: the trainer's step in which that happened (0: none)."""

    type: Literal["closed"] = "closed"
    rollout_id: str
    state: State
    reason: str = ""
    step: int = 0


class RolloutRaised(_Event):
    """A rollout raised an exception. It is `failed` if a `GroupFailed` follows, else the run was ending."""

    type: Literal["broken"] = "broken"
    rollout_id: str
    reason: str


class GroupFailed(_Event):
    """A group was dropped because a rollout of it raised. Its open rollouts are `failed`."""

    type: Literal["group_failed"] = "group_failed"
    uid: str
    step: int = 0


class GroupDropped(_Event):
    """A group was dropped because it had too few valid samples, or because all had the same reward.

    Each of those has a `RolloutEnded` entry, `masked`.
    """

    type: Literal["group_dropped"] = "group_dropped"
    uid: str
    step: int = 0
    reason: Literal["too_few", "no_signal"] = "too_few"


class CheckpointSaved(_Event):
    """A checkpoint holds the weights after `step`, and the groups in flight.

    `held`: the rollouts of ended groups with trajectories in it.
    """

    type: Literal["saved"] = "saved"
    step: int
    held: tuple[str, ...] = ()


class Resumed(_Event):
    """A run continues from the checkpoint of `step` (0: from its start).

    What later steps did to rollouts is undone, like their weights; so are cancellations by the end of the
    run.
    """

    type: Literal["resumed"] = "resumed"
    step: int


class Abandoned(_Event):
    """A rollout that a resumed run cannot continue.

    It is `cancelled`, and one with another id replaces it.
    """

    type: Literal["abandoned"] = "abandoned"
    rollout_id: str
    reason: str


class Finished(_Event):
    """The run did its last step and cannot be resumed."""

    type: Literal["finished"] = "finished"


Entry = Annotated[
    Started | Posted | RequestEnded | TextGenerated | TrainerWaited | Paused | PauseEnded | Scored |
    RolloutEnded | RolloutRaised | GroupFailed | GroupDropped | CheckpointSaved | Resumed | Abandoned |
    Finished,
    Field(discriminator="type"),
]  # fmt: skip
ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
