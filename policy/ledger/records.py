"""The merged view of a run ledger: a record per rollout and per request, and events of the whole run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from policy.document import Document, Task
from policy.ledger import entries
from policy.ledger.entries import Entry, GroupDropped, GroupFailed, Resumed, Span, State, TrainerWaited
from policy.scoring import Score
from workers.messages import BlobRef, Failure, Outcome, Request, Success

EVALUATION = "eval-"  # start of the id of a document of an evaluation; the ids of groups are hexadecimal


def of_evaluation(rollout_id: str) -> bool:
    """Whether the rollout (or request owner) of this id is a document of an evaluation while training."""
    return rollout_id.startswith(EVALUATION)


def rollout_of(entry: Entry) -> str:
    """The rollout of an entry that is about one, else an empty text."""
    match entry:
        case entries.Scored():
            return entry.document.rollout_id
        case entries.Started() | entries.TextGenerated() | entries.RolloutEnded() | entries.RolloutRaised():
            return entry.rollout_id
    return ""


@dataclass
class RolloutRecord:
    """One rollout.

    `state` is None while it is open. `started`, `generated` (the text was complete), `scored` and `ended` (it
    got its state) are Unix seconds, 0 for not yet. `segments`: the times of each generated segment.
    `submitted_step`: the trainer's step that submitted it; `step`: the one in which it ended, 0 for none.
    """

    rollout_id: str
    task: Task | None = None
    started: float = 0.0
    submitted_step: int = 0
    segments: tuple[Span, ...] = ()
    generated: float = 0.0
    document: Document | None = None
    score: Score | None = None
    scored: float = 0.0
    tokens: int = 0
    versions: tuple[int, int] | None = None
    state: State | None = None
    reason: str = ""
    step: int = 0
    ended: float = 0.0
    abandoned: bool = False  # by a resumed run

    @property
    def reward(self) -> float | None:
        return self.score.reward if self.score else None

    @property
    def uid(self) -> str:
        """The id of its group."""
        return self.rollout_id.rpartition("_")[0]


@dataclass
class RequestRecord:
    """One request and its outcome (None: not yet). Times are Unix seconds at the producer."""

    request: Request
    posted: float
    outcome: Outcome | None = None
    ended: float = 0.0

    @property
    def failure(self) -> Failure | None:
        return self.outcome.result if self.outcome and isinstance(self.outcome.result, Failure) else None

    @property
    def images(self) -> tuple[BlobRef, ...]:
        """The images of a success."""
        return self.outcome.result.images if self.outcome and isinstance(self.outcome.result, Success) else ()


@dataclass
class Ledger:
    """The merged view of a run.

    `rollouts`: those of training. `evaluated`: the documents of evaluations (`train.evaluate_every`), apart
    from them; their `submitted_step` is the version of the weights then. `waits`: the times in which the
    trainer waited for groups, in order. `pauses`: (start, end) of the pauses because a provider was down, the
    last one with an infinite end while it lasts. `checkpoints`: their steps. `held`: by such a step, the
    rollouts with trajectories in the checkpoint. `resumed`: in order. `last`: time of the last entry.
    `failed`, `dropped`: by group id. `violations`: broken invariants (see `policy.ledger.merge`); empty in a
    healthy run.
    """

    rollouts: dict[str, RolloutRecord] = field(default_factory=dict)
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    waits: list[TrainerWaited] = field(default_factory=list)
    pauses: list[Span] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    held: dict[int, frozenset[str]] = field(default_factory=dict)
    resumed: list[Resumed] = field(default_factory=list)
    finished: bool = False
    last: float = 0.0
    violations: list[str] = field(default_factory=list)
    failed: dict[str, GroupFailed] = field(default_factory=dict)  # see `merge.apply_group_failures`
    dropped: dict[str, GroupDropped] = field(default_factory=dict)
    evaluated: dict[str, RolloutRecord] = field(default_factory=dict)

    @property
    def open(self) -> list[RolloutRecord]:
        """Rollouts of training without a terminal state."""
        return [rollout for rollout in self.rollouts.values() if rollout.state is None]

    @property
    def open_evaluated(self) -> list[RolloutRecord]:
        """Documents of evaluations without a terminal state."""
        return [rollout for rollout in self.evaluated.values() if rollout.state is None]

    def owner(self, record: RequestRecord) -> RolloutRecord | None:
        """The rollout or document that posted a request."""
        owner = record.request.owner
        return self.rollouts.get(owner) or self.evaluated.get(owner)

    @property
    def pending(self) -> list[RequestRecord]:
        """Requests without an outcome."""
        return [record for record in self.requests.values() if record.outcome is None]

    def states(self) -> Counter[str]:
        """The number of rollouts by state (`open` for none)."""
        return Counter(rollout.state or "open" for rollout in self.rollouts.values())
