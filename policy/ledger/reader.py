"""The run ledger as a whole: the files of all processes merged, checked, and closed at the run's end.

Invariant: a rollout has exactly one terminal state and a request exactly one outcome; the first one counts,
and what comes after it is reported as a violation, never silently taken. A resume (`Resumed`) cuts off the
steps that no checkpoint holds: what they did is as if it had not been, and may be done again.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from policy.document import Document, Task
from policy.ledger.writer import (
    ENTRY,
    LEDGER,
    Abandoned,
    Broken,
    Closed,
    Ended,
    Entry,
    Finished,
    GroupDropped,
    GroupFailed,
    LedgerWriter,
    Paused,
    PauseEnded,
    Posted,
    Resumed,
    Saved,
    Scored,
    Span,
    Started,
    State,
    Waited,
    Wrote,
)
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request


@dataclass
class RolloutRecord:
    """All that the ledger knows of one rollout. `state` is None while it is open. `started`, `wrote` (its
    text was complete), `scored` and `closed` (it got its state) are Unix seconds, 0 for never; `segments`:
    when the generator wrote it."""

    rollout_id: str
    task: Task | None = None
    started: float = 0.0
    asked_in_step: int = 0
    segments: tuple[Span, ...] = ()
    wrote: float = 0.0
    document: Document | None = None
    score: Score | None = None
    scored: float = 0.0
    tokens: int = 0
    versions: tuple[int, int] | None = None
    state: State | None = None
    reason: str = ""
    step: int = 0
    closed: float = 0.0
    abandoned: bool = False  # by a resumed run

    @property
    def reward(self) -> float | None:
        return self.score.reward if self.score else None

    @property
    def uid(self) -> str:
        """The group it belongs to."""
        return self.rollout_id.rpartition("_")[0]


@dataclass
class RequestRecord:
    """One request and its outcome (None: none seen yet). Times are Unix seconds at the producer."""

    request: Request
    posted: float
    outcome: Outcome | None = None
    ended: float = 0.0


@dataclass
class Ledger:
    """The merged view of a run. `waits`: when the trainer waited for groups, in order; `pauses`: from when to
    when it asked for none because a provider was down, the last one without an end while it goes on; `saved`:
    steps with a checkpoint; `held`: by such a step, the rollouts whose trajectories the checkpoint has;
    `resumed`: in order; `last`: time of the last entry. `violations` name what the
    invariants forbid; empty is healthy."""

    rollouts: dict[str, RolloutRecord] = field(default_factory=dict)
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    waits: list[Waited] = field(default_factory=list)
    pauses: list[Span] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    held: dict[int, frozenset[str]] = field(default_factory=dict)
    resumed: list[Resumed] = field(default_factory=list)
    finished: bool = False
    last: float = 0.0
    violations: list[str] = field(default_factory=list)
    failed: dict[str, GroupFailed] = field(default_factory=dict)  # by group; see `settle`
    dropped: dict[str, GroupDropped] = field(default_factory=dict)  # by group

    @property
    def open(self) -> list[RolloutRecord]:
        """Rollouts without a terminal state."""
        return [rollout for rollout in self.rollouts.values() if rollout.state is None]

    @property
    def pending(self) -> list[RequestRecord]:
        """Requests without an outcome."""
        return [record for record in self.requests.values() if record.outcome is None]

    def states(self) -> Counter[str]:
        """How many rollouts ended in which state (`open` for none)."""
        return Counter(rollout.state or "open" for rollout in self.rollouts.values())


def read_ledger(run: Path) -> Ledger:
    """Merge the files of a run, live or ended. A torn last line (a process just killed) is skipped.

    Raises `ValueError` naming file and line when any other line does not validate.
    """
    entries: list[Entry] = []
    for path in sorted((run / LEDGER).glob("*.jsonl")):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entries.append(ENTRY.validate_json(line))
            except ValidationError as error:
                raise ValueError(f"{path}:{number}: {error.errors()[0]['msg']}") from error
    entries.sort(key=lambda entry: entry.time)
    ledger = Ledger()
    for entry in entries:
        merge(ledger, entry)
    settle(ledger)
    return ledger


def settle(ledger: Ledger) -> None:
    """End what is open of the groups that failed. Only once all that was written of them is merged: their
    rollouts may have states of their own."""
    if ledger.failed:
        for rollout in ledger.open:
            if rollout.uid in ledger.failed:
                fail(rollout, ledger.failed[rollout.uid])


def fail(rollout: RolloutRecord, entry: GroupFailed) -> None:
    """End a rollout that is open with its group."""
    rollout.state, rollout.step, rollout.closed = "failed", entry.step, entry.time
    rollout.reason = rollout.reason or "a sibling failed"


def merge(ledger: Ledger, entry: Entry) -> None:
    """Add one entry; they come in the order of their times. Failed groups are left to `settle`."""
    ledger.last = max(ledger.last, entry.time)
    match entry:
        case Started():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.task is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} started twice")
            rollout.task, rollout.started, rollout.asked_in_step = entry.task, entry.time, entry.step
        case Posted():
            # A resumed run takes the same id up with another deadline: it is still one request.
            record = ledger.requests.get(entry.request.request_id)
            if record is None:
                ledger.requests[entry.request.request_id] = RequestRecord(entry.request, entry.time)
            elif record.outcome is None:
                record.request = entry.request
        case Ended():
            record = ledger.requests.get(entry.outcome.request_id)
            if record is None:
                ledger.violations.append(
                    f"outcome of request {entry.outcome.request_id}, which was never posted"
                )
            elif record.outcome is not None:
                ledger.violations.append(f"request {entry.outcome.request_id} has two outcomes")
            else:
                record.outcome, record.ended = entry.outcome, entry.time
        case Wrote():
            rollout = _rollout(ledger, entry.rollout_id)
            rollout.segments, rollout.wrote = entry.segments, entry.time
        case Waited():
            ledger.waits.append(entry)
        case Paused():
            ledger.pauses.append((entry.time, math.inf))
        case PauseEnded() if ledger.pauses:
            ledger.pauses[-1] = ledger.pauses[-1][0], entry.time
        case Scored():
            rollout = _rollout(ledger, entry.document.rollout_id)
            if rollout.document is not None:
                ledger.violations.append(f"rollout {rollout.rollout_id} was scored twice")
            rollout.document, rollout.score, rollout.scored = entry.document, entry.score, entry.time
            rollout.tokens, rollout.versions = entry.tokens, entry.versions
        case Closed():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.state is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} is {rollout.state} and {entry.state}")
            else:
                rollout.state, rollout.reason, rollout.step = entry.state, entry.reason, entry.step
                rollout.closed = entry.time
        case Broken():
            _rollout(ledger, entry.rollout_id).reason = entry.reason
        case GroupFailed():
            ledger.failed[entry.uid] = entry
        case GroupDropped():
            ledger.dropped[entry.uid] = entry
        case Saved():
            ledger.saved.append(entry.step)
            ledger.held[entry.step] = frozenset(entry.held)
        case Resumed():
            _undo(ledger, entry)
        case Abandoned():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.state is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} is {rollout.state} and abandoned")
            rollout.state, rollout.reason, rollout.closed = "cancelled", entry.reason, entry.time
            rollout.abandoned = True
        case Finished():
            ledger.finished = True


def _undo(ledger: Ledger, entry: Resumed) -> None:
    """Open again what steps after the checkpoint ended, and what the run's end cancelled. A request that was
    cancelled is open again if its rollout is: no worker has an answer for it yet."""
    settle(ledger)
    ledger.failed.clear()
    ledger.dropped = {uid: drop for uid, drop in ledger.dropped.items() if drop.step <= entry.step}
    for rollout in ledger.rollouts.values():
        if rollout.step > entry.step or (rollout.state == "cancelled" and not rollout.abandoned):
            rollout.state, rollout.step, rollout.closed = None, 0, 0.0
        if rollout.state is None:
            rollout.reason = ""
    for record in ledger.requests.values():
        owner = ledger.rollouts.get(record.request.owner)
        if owner is not None and owner.state is None and _cancelled(record):
            record.outcome, record.ended = None, 0.0
    ledger.waits = [wait for wait in ledger.waits if wait.step <= entry.step]
    ledger.pauses = [(began, min(ended, entry.time)) for began, ended in ledger.pauses]
    ledger.saved = [step for step in ledger.saved if step <= entry.step]
    ledger.resumed.append(entry)
    ledger.finished = False


def _cancelled(record: RequestRecord) -> bool:
    result = record.outcome.result if record.outcome else None
    return isinstance(result, Failure) and result.cause is Cause.CANCELLED


def _rollout(ledger: Ledger, rollout_id: str) -> RolloutRecord:
    return ledger.rollouts.setdefault(rollout_id, RolloutRecord(rollout_id))


def close_open(run: Path) -> Ledger:
    """End every rollout and request that is still open when the run ends, and return the ledger after it.

    To be called once no process of the run is alive. Such a rollout is `cancelled`, such a request ends as a
    failure with `Cause.CANCELLED`.
    """
    ledger = read_ledger(run)
    writer = LedgerWriter(run, "coordinator")
    try:
        for rollout in ledger.open:
            reason = "the run ended before it was trained on" if rollout.score else "the run ended"
            writer.closed(rollout.rollout_id, "cancelled", reason=reason)
        for record in ledger.pending:
            request = record.request
            failure = Failure(cause=Cause.CANCELLED, detail="the run ended")
            writer.ended(Outcome(request_id=request.request_id, kind=request.kind, result=failure))
    finally:
        writer.close()
    return read_ledger(run)


def reward_curve(ledger: Ledger) -> dict[int, float]:
    """Mean reward of the documents trained on in each step."""
    rewards: dict[int, list[float]] = {}
    for rollout in ledger.rollouts.values():
        if rollout.state == "trained" and rollout.reward is not None:
            rewards.setdefault(rollout.step, []).append(rollout.reward)
    return {step: sum(values) / len(values) for step, values in sorted(rewards.items())}
