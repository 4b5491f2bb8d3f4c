"""The tables of masked samples on a run's page, by cause and by step, and one example of each cause."""

from __future__ import annotations

from coordinator.watch.masks import Masks, in_ranges, short_id
from coordinator.watch.summary import Summary
from evaluation.pages.run_page import Table
from evaluation.pages.samples import Sample
from policy.ledger.masked import masked_samples
from policy.ledger.records import Ledger

SHOWN = 6  # most samples
STEPS = 12  # rows of the table by step


def masked_note(summary: Summary) -> str:
    """The text beside the number of masked samples."""
    dropped = (
        f"; {summary.dropped_with_group:,} dropped with their groups" if summary.dropped_with_group else ""
    )
    return f"by infrastructure{dropped}; {summary.n_valid:,} of {summary.n_total:,} valid"


def masked_tables(masks: Masks, summary: Summary) -> list[Table]:
    """Tables by cause (with ids for `llmi why`) and by step; none when nothing was masked."""
    if not masks.causes:
        return []
    causes = [
        [one.cause.replace("_", " "), one.by.replace("_", " "), f"{one.samples:,}", in_ranges(one.steps),
         short_id(one.examples[0])]
        for one in masks.causes
    ]  # fmt: skip
    infrastructure, group = summary.masked_by_step, summary.dropped_by_step
    steps = sorted(
        {*infrastructure, *group}, key=lambda step: -infrastructure.get(step, 0) - group.get(step, 0)
    )
    rows = [
        [str(step) if step else "none", f"{infrastructure.get(step, 0):,}", f"{group.get(step, 0):,}"]
        for step in sorted(steps[:STEPS])
    ]
    title = (
        "Masked, by step" if len(steps) <= STEPS else f"Masked, {STEPS} steps with the most of {len(steps)}"
    )
    return [
        Table("Masked, by cause", ["cause", "by", "samples", "steps", "such as"], causes),
        Table(title, ["step", "by infrastructure", "with its group"], rows),
    ]


def examples(ledger: Ledger, run: str) -> list[Sample]:
    """One masked sample for each set of causes, the most frequent set first."""
    by_causes: dict[tuple[str, ...], list[Sample]] = {}
    for one in masked_samples(ledger):
        rollout = one.rollout
        if one.dropped or rollout.document is None or rollout.score is None:
            continue
        key = tuple(sorted({f"{reason.by} {reason.failure.cause}" for reason in one.reasons}))
        shown = Sample(
            document=rollout.document,
            step=one.step,
            reward=None,
            state="masked",
            masked_by=rollout.score.masked_by,
            by=tuple(reason.by for reason in one.reasons),
            more=f"llmi why {run} {rollout.rollout_id}",
        )
        by_causes.setdefault(key, []).append(shown)
    ordered = sorted(by_causes.values(), key=lambda found: -len(found))
    return [found[0] for found in ordered[:SHOWN]]
