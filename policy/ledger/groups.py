"""Summarize the groups of a run from its ledger: trained on, or replaced and why, and their latency. Pure.

Invariants: a group has one result; groups that were open at the end of the run are not counted, nor are
rollouts that a resumed run abandoned, since others replace them. The latency of a group is the time from the
start of its first rollout to the score of its last, in seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from policy.ledger.entries import GroupDropped
from policy.ledger.records import Ledger, RolloutRecord

QUARTERS = 4
REPLACED = ("stale", "failed", "too_few", "no_signal")
Members = list[RolloutRecord]


@dataclass(frozen=True)
class GroupSummary:
    """`n_valid`: valid samples among the `n_total` of groups that were trained on.

    `replaced`: groups by reason (`REPLACED`). `dropped_by_latency`: the share of complete groups that
    became stale, from the fastest quarter to the slowest; empty for fewer than four groups.
    """

    n_valid: int
    n_total: int
    replaced: dict[str, int]
    dropped_by_latency: list[float]


def group_summary(ledger: Ledger) -> GroupSummary:
    """Summarize the whole run."""
    by_uid: dict[str, Members] = defaultdict(list)
    for rollout in ledger.rollouts.values():
        if not rollout.abandoned:
            by_uid[rollout.uid].append(rollout)
    results = {uid: _result(members, ledger.dropped.get(uid)) for uid, members in by_uid.items()}
    trained = [by_uid[uid] for uid, result in results.items() if result == "trained"]
    written = [
        (_latency(by_uid[uid]), result == "stale")
        for uid, result in results.items()
        if result in ("trained", "stale")
    ]
    replaced = Counter(result for result in results.values() if result in REPLACED)
    return GroupSummary(
        n_valid=sum(rollout.state == "trained" for members in trained for rollout in members),
        n_total=sum(map(len, trained)),
        replaced=dict(sorted(replaced.items())),
        dropped_by_latency=dropped_by_quarter(written),
    )


def dropped_by_quarter(written: list[tuple[float, bool]]) -> list[float]:
    """The share of dropped groups in each quarter of `(latency, dropped)`, ranked, the fastest first.

    Quarters differ in size by one at most. If slow prompts are dropped systematically, the last share is the
    largest. Empty for fewer than four groups.
    """
    if len(written) < QUARTERS:
        return []
    ranked = [dropped for _latency, dropped in sorted(written)]
    edges = [len(ranked) * quarter // QUARTERS for quarter in range(QUARTERS + 1)]
    return [sum(ranked[low:high]) / (high - low) for low, high in pairwise(edges)]


def _result(members: Members, drop: GroupDropped | None) -> str:
    states = {rollout.state for rollout in members}
    for state in ("trained", "failed", "stale"):
        if state in states:
            return state
    if states != {"masked"}:
        return "open"
    return drop.reason if drop else "too_few"


def _latency(members: Members) -> float:
    return max(rollout.scored for rollout in members) - min(rollout.started for rollout in members)
