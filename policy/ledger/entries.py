"""The entries of the run ledger: one class per event, one JSON object per line.

Invariants:
- `type` names the class in the file;
- a field is never renamed or removed: a resumed run reads files that older versions wrote;
- times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from policy.document import Document, Task
from policy.scoring import Score
from workers.messages import Message, Outcome, Request

LEDGER = "ledger"
State = Literal["trained", "masked", "stale", "cancelled", "failed"]


class Started(Message):
    """A rollout began. `step` is the trainer's step that asked for it."""

    type: Literal["started"] = "started"
    time: float
    rollout_id: str
    task: Task
    step: int = 0


class Posted(Message):
    type: Literal["posted"] = "posted"
    time: float
    request: Request


class Ended(Message):
    """A request's one outcome."""

    type: Literal["ended"] = "ended"
    time: float
    outcome: Outcome


Span = tuple[float, float]  # began, ended; Unix seconds


class Wrote(Message):
    """A rollout's text is complete. `segments`: when the generator was asked for each, and when it had it."""

    type: Literal["wrote"] = "wrote"
    time: float
    rollout_id: str
    segments: tuple[Span, ...]


class Waited(Message):
    """The trainer waited for the groups of `step`, from `began` to `time`."""

    type: Literal["waited"] = "waited"
    time: float
    began: float
    step: int


class Paused(Message):
    """The trainer asks for no more rollouts, because providers are down: `providers` in words; the first of
    them has been failing since `since` (Unix seconds)."""

    type: Literal["paused"] = "paused"
    time: float
    providers: tuple[str, ...]
    since: float


class PauseEnded(Message):
    """The trainer asks for rollouts again."""

    type: Literal["pause_ended"] = "pause_ended"
    time: float


class Scored(Message):
    """A finished document with its score; `versions`: the oldest and newest weights (trainer steps) that
    wrote it."""

    type: Literal["scored"] = "scored"
    time: float
    document: Document
    score: Score
    tokens: int
    versions: tuple[int, int] | None = None


class Closed(Message):
    """A rollout's terminal state. `step` is the trainer's step it happened in (0: outside of any)."""

    type: Literal["closed"] = "closed"
    time: float
    rollout_id: str
    state: State
    reason: str = ""
    step: int = 0


class Broken(Message):
    """A rollout stopped with an exception. Whether it `failed` or the run just ended, its group tells."""

    type: Literal["broken"] = "broken"
    time: float
    rollout_id: str
    reason: str


class GroupFailed(Message):
    """A group was thrown away because a rollout of it broke; whichever of them has no terminal state,
    failed."""

    type: Literal["group_failed"] = "group_failed"
    time: float
    uid: str
    step: int = 0


class GroupDropped(Message):
    """A group was dropped because it had too few valid samples; these are closed as `masked`, each by an
    entry of its own.
    """

    type: Literal["group_dropped"] = "group_dropped"
    time: float
    uid: str
    step: int = 0


class Saved(Message):
    """A checkpoint holds the weights as they were after `step`, and what was under way then; of `held`, the
    rollouts of groups that had ended, all that is to be trained on."""

    type: Literal["saved"] = "saved"
    time: float
    step: int
    held: tuple[str, ...] = ()


class Resumed(Message):
    """A run that died goes on from the checkpoint of `step` (0: from its beginning). What later steps did to
    rollouts is undone, with their weights; so is what only its end cancelled."""

    type: Literal["resumed"] = "resumed"
    time: float
    step: int


class Abandoned(Message):
    """A rollout that a resumed run cannot go on with: `cancelled` for good. One of another id is begun in its
    place."""

    type: Literal["abandoned"] = "abandoned"
    time: float
    rollout_id: str
    reason: str


class Finished(Message):
    """The run did its last step; there is nothing left to resume."""

    type: Literal["finished"] = "finished"
    time: float


Entry = Annotated[
    Started
    | Posted
    | Ended
    | Wrote
    | Waited
    | Paused
    | PauseEnded
    | Scored
    | Closed
    | Broken
    | GroupFailed
    | GroupDropped
    | Saved
    | Resumed
    | Abandoned
    | Finished,
    Field(discriminator="type"),
]
ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
