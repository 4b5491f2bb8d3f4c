"""Merge entries into a `Ledger`, one at a time, in the order of their times. Pure.

Invariants:
- a rollout has exactly one terminal state, and a request exactly one outcome;
- the first one counts; a second one is recorded in `Ledger.violations` and changes nothing;
- a resume (`Resumed`) undoes the steps after its checkpoint, so a sample may be trained on again.
"""

from __future__ import annotations

import math

from policy.ledger import entries
from policy.ledger.entries import Entry
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord, of_evaluation
from workers.errors import Cause


def apply_group_failures(ledger: Ledger) -> None:
    """Set the state of the open rollouts of failed groups.

    Documents of evaluations are included. Call it after merging all entries, since those rollouts may have
    states of their own.
    """
    if ledger.failed:
        for rollout in [*ledger.open, *ledger.open_evaluated]:
            if rollout.uid in ledger.failed:
                fail_rollout(rollout, ledger.failed[rollout.uid])


def fail_rollout(rollout: RolloutRecord, entry: entries.GroupFailed) -> None:
    """Set the state of an open rollout of a failed group."""
    rollout.state, rollout.step, rollout.ended = "failed", entry.step, entry.time
    rollout.reason = rollout.reason or "another rollout of its group failed"


def merge(ledger: Ledger, entry: Entry) -> None:
    """Add one entry. Failed groups are left to `apply_group_failures`."""
    ledger.last = max(ledger.last, entry.time)
    match entry:
        case entries.Started():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.task is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} started twice")
            rollout.task, rollout.started, rollout.submitted_step = entry.task, entry.time, entry.step
        case entries.Posted():
            # A resumed run posts the same id with another deadline: it is still one request.
            record = ledger.requests.get(entry.request.request_id)
            if record is None:
                ledger.requests[entry.request.request_id] = RequestRecord(entry.request, entry.time)
            elif record.outcome is None:
                record.request = entry.request
        case entries.RequestEnded():
            record = ledger.requests.get(entry.outcome.request_id)
            if record is None:
                ledger.violations.append(
                    f"outcome of request {entry.outcome.request_id}, which was never posted"
                )
            elif record.outcome is not None:
                ledger.violations.append(f"request {entry.outcome.request_id} has two outcomes")
            else:
                record.outcome, record.ended = entry.outcome, entry.time
        case entries.TextGenerated():
            rollout = _rollout(ledger, entry.rollout_id)
            rollout.segments, rollout.generated = entry.segments, entry.time
        case entries.TrainerWaited():
            ledger.waits.append(entry)
        case entries.Paused():
            ledger.pauses.append((entry.time, math.inf))
        case entries.PauseEnded() if ledger.pauses:
            ledger.pauses[-1] = ledger.pauses[-1][0], entry.time
        case entries.Scored():
            rollout = _rollout(ledger, entry.document.rollout_id)
            if rollout.document is not None:
                ledger.violations.append(f"rollout {rollout.rollout_id} was scored twice")
            rollout.document, rollout.score, rollout.scored = entry.document, entry.score, entry.time
            rollout.tokens, rollout.versions = entry.tokens, entry.versions
        case entries.RolloutEnded():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.state is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} is {rollout.state} and {entry.state}")
            else:
                rollout.state, rollout.reason, rollout.step = entry.state, entry.reason, entry.step
                rollout.ended = entry.time
        case entries.RolloutRaised():
            _rollout(ledger, entry.rollout_id).reason = entry.reason
        case entries.GroupFailed():
            ledger.failed[entry.uid] = entry
        case entries.GroupDropped():
            ledger.dropped[entry.uid] = entry
        case entries.CheckpointSaved():
            ledger.checkpoints.append(entry.step)
            ledger.held[entry.step] = frozenset(entry.held)
        case entries.Resumed():
            _undo(ledger, entry)
        case entries.Abandoned():
            rollout = _rollout(ledger, entry.rollout_id)
            if rollout.state is not None:
                ledger.violations.append(f"rollout {entry.rollout_id} is {rollout.state} and abandoned")
            rollout.state, rollout.reason, rollout.ended = "cancelled", entry.reason, entry.time
            rollout.abandoned = True
        case entries.Finished():
            ledger.finished = True


def _undo(ledger: Ledger, entry: entries.Resumed) -> None:
    """Reopen rollouts that steps after the checkpoint closed, and those that the end of the run cancelled.

    Documents of evaluations stay as they are: an interrupted evaluation is done again, with others. A
    cancelled request is reopened with its rollout, because no worker has answered it.
    """
    apply_group_failures(ledger)
    ledger.failed.clear()
    ledger.dropped = {uid: drop for uid, drop in ledger.dropped.items() if drop.step <= entry.step}
    for rollout in ledger.rollouts.values():
        if rollout.step > entry.step or (rollout.state == "cancelled" and not rollout.abandoned):
            rollout.state, rollout.step, rollout.ended = None, 0, 0.0
        if rollout.state is None:
            rollout.reason = ""
    for record in ledger.requests.values():
        owner = ledger.rollouts.get(record.request.owner)
        cancelled = record.failure is not None and record.failure.cause is Cause.CANCELLED
        if owner is not None and owner.state is None and cancelled:
            record.outcome, record.ended = None, 0.0
    ledger.waits = [wait for wait in ledger.waits if wait.step <= entry.step]
    ledger.pauses = [(began, min(ended, entry.time)) for began, ended in ledger.pauses]
    ledger.checkpoints = [step for step in ledger.checkpoints if step <= entry.step]
    ledger.resumed.append(entry)
    ledger.finished = False


def _rollout(ledger: Ledger, rollout_id: str) -> RolloutRecord:
    kept = ledger.evaluated if of_evaluation(rollout_id) else ledger.rollouts
    return kept.setdefault(rollout_id, RolloutRecord(rollout_id))
