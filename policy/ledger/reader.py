"""Read the run ledger: merge the files of all processes, and close what is open at the end of the run."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from policy.ledger.entries import ENTRY, LEDGER, Entry
from policy.ledger.merge import apply_group_failures, merge
from policy.ledger.records import Ledger, of_evaluation
from policy.ledger.writer import LedgerWriter
from workers.errors import Cause
from workers.messages import Failure, Outcome


def read_ledger(run: Path) -> Ledger:
    """Merge the files of a run, which may still be running. An incomplete last line is skipped.

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
    apply_group_failures(ledger)
    return ledger


def close_open(run: Path) -> Ledger:
    """Cancel every rollout and request that is open at the end of the run, and return the ledger after that.

    Call it when no process of the run is alive. The outcome of such a request is a failure with
    `Cause.CANCELLED`.
    """
    ledger = read_ledger(run)
    writer = LedgerWriter(run, "coordinator")
    try:
        for rollout in [*ledger.open, *ledger.open_evaluated]:
            used = "read" if of_evaluation(rollout.rollout_id) else "trained on"
            reason = f"the run ended before it was {used}" if rollout.score else "the run ended"
            writer.rollout_ended(rollout.rollout_id, "cancelled", reason=reason)
        for record in ledger.pending:
            request = record.request
            failure = Failure(cause=Cause.CANCELLED, detail="the run ended")
            writer.request_ended(Outcome(request_id=request.request_id, kind=request.kind, result=failure))
    finally:
        writer.close()
    return read_ledger(run)


def reward_curve(ledger: Ledger) -> dict[int, float]:
    """The mean reward of the samples trained on, by step."""
    rewards: dict[int, list[float]] = {}
    for rollout in ledger.rollouts.values():
        if rollout.state == "trained" and rollout.reward is not None:
            rewards.setdefault(rollout.step, []).append(rollout.reward)
    return {step: sum(values) / len(values) for step, values in sorted(rewards.items())}
