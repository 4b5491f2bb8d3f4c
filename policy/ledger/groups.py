"""What became of the groups of a run, from its ledger: trained on, replaced and why, and how slow they were.

Invariants: pure; a group has one fate; groups that the end of the run cut off are in no count, nor are
rollouts that a resumed run abandoned, which others replace. A group's latency is the time from its first
rollout's start to its last one's score, in seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise

from policy.ledger.records import Ledger, RolloutRecord

QUARTERS = 4
Members = list[RolloutRecord]


@dataclass(frozen=True)
class GroupSummary:
    """`n_valid` of `n_total` samples of the groups that were trained on could vote. `replaced`: groups by
    cause (`stale`, `failed`, `too_few`). `dropped_by_latency`: of all groups that were written to their end,
    from the fastest quarter to the slowest, the share that was thrown away as stale; empty with fewer than
    four."""

    n_valid: int
    n_total: int
    replaced: dict[str, int]
    dropped_by_latency: list[float]


def group_summary(ledger: Ledger) -> GroupSummary:
    """Counted over the whole run."""
    by_uid: dict[str, Members] = defaultdict(list)
    for rollout in ledger.rollouts.values():
        if not rollout.abandoned:
            by_uid[rollout.uid].append(rollout)
    fates = {uid: _fate(members) for uid, members in by_uid.items()}
    trained = [by_uid[uid] for uid, fate in fates.items() if fate == "trained"]
    written = [
        (_latency(by_uid[uid]), fate == "stale")
        for uid, fate in fates.items()
        if fate in ("trained", "stale")
    ]
    replaced = Counter(fate for fate in fates.values() if fate in ("stale", "failed", "too_few"))
    return GroupSummary(
        n_valid=sum(rollout.state == "trained" for members in trained for rollout in members),
        n_total=sum(map(len, trained)),
        replaced=dict(sorted(replaced.items())),
        dropped_by_latency=dropped_by_quarter(written),
    )


def dropped_by_quarter(written: list[tuple[float, bool]]) -> list[float]:
    """The share of dropped ones in each quarter of `(latency, dropped)`, by rank, the fastest first.

    Quarters differ by one in size at most. Were slow prompts thrown away systematically, the last would be
    the largest. Empty for fewer than four.
    """
    if len(written) < QUARTERS:
        return []
    ranked = [dropped for _latency, dropped in sorted(written)]
    edges = [len(ranked) * quarter // QUARTERS for quarter in range(QUARTERS + 1)]
    return [sum(ranked[low:high]) / (high - low) for low, high in pairwise(edges)]


def _fate(members: Members) -> str:
    states = {rollout.state for rollout in members}
    for fate in ("trained", "failed", "stale"):
        if fate in states:
            return fate
    return "too_few" if states == {"masked"} else "open"


def _latency(members: Members) -> float:
    return max(rollout.scored for rollout in members) - min(rollout.started for rollout in members)
