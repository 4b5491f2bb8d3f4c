"""Slots of rollouts, and the groups that verl's checkpoint knows. Pure.

A slot is `<group>_<n>`, the n-th rollout of a group. A rollout that is started again has the id `<slot>.<m>`.
"""

from __future__ import annotations

from policy.ledger.records import Ledger, RolloutRecord


def slot_of(rollout_id: str) -> str:
    """The slot of a rollout, without the number of the attempt."""
    uid, _, sibling = rollout_id.rpartition("_")
    return f"{uid}_{sibling.partition('.')[0]}"


def group_of(rollout_id: str) -> str:
    """The group of a rollout or slot."""
    return rollout_id.rpartition("_")[0]


def latest_by_slot(ledger: Ledger) -> dict[str, RolloutRecord]:
    """The last rollout of each slot."""
    latest: dict[str, RolloutRecord] = {}
    for rollout in ledger.rollouts.values():
        slot = slot_of(rollout.rollout_id)
        if slot not in latest or _attempt(rollout.rollout_id) > _attempt(latest[slot].rollout_id):
            latest[slot] = rollout
    return latest


def submitted_before(ledger: Ledger, step: int) -> set[str]:
    """The groups that were submitted before the checkpoint of `step`, in steps that no resume undid."""
    groups: set[str] = set()
    for rollout in ledger.rollouts.values():
        undone = (resume.step for resume in ledger.resumed if resume.time > rollout.started)
        if 0 < rollout.submitted_step <= min((step, *undone)):
            groups.add(rollout.uid)
    return groups


def _attempt(rollout_id: str) -> int:
    return int(rollout_id.rpartition("_")[2].partition(".")[2] or 0)
