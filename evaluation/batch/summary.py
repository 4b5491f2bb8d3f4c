"""The numbers of a batch, for programs. Pure functions.

Invariant: what is missing is never a number; every number states how many points it is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.batch.batch import Manifest
from evaluation.batch.results import TOP, ItemResult, failures
from evaluation.benchmark import Item
from evaluation.payloads import judge_name
from policy.scoring import Score

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95
METHOD = (
    f"{LEVEL:.0%} interval: percentile bootstrap over items, {RESAMPLES:,} resamples, seed {SEED}. "
    "What is missing is in no mean; what was refused is in it as 0."
)


def summary(manifest: Manifest, results: Mapping[str, ItemResult]) -> dict[str, Any]:
    """The numbers of a batch, as report.json has them. `score`: value, judged, of, low and high."""
    points = {item.item_id: results[item.item_id].points if item.item_id in results else []
              for item in manifest.items}  # fmt: skip
    scores = [result.score for result in results.values() if result.score is not None]
    return {
        "name": manifest.name,
        "benchmark": manifest.benchmark,
        "kind": manifest.kind,
        "author": manifest.author.model,
        "judge": judge_name(manifest.rubric) if manifest.kind == "rubric" else manifest.reward.formula,
        "judges_that_spoke": sorted(set().union(*(_judges(result) for result in results.values()))),
        "scale": TOP if manifest.kind == "rubric" else 1.0,
        "score": vars(overall(list(points.values()), manifest.criteria)),
        "terms": {name: vars(value) for name, value in terms(scores).items()},
        "documents": {
            "written": sum(bool(result.document_id) for result in results.values()),
            "of": len(manifest.items),
        },
        "failures": failures(results.values()),
        "refused": {
            "documents": sum(result.unwritten for result in results.values()),
            "points": sum(result.refused for result in results.values()),
        },
        "method": METHOD,
        "items": [
            _item(item, results.get(item.item_id), mean(points[item.item_id], len(item.criteria) or 1))
            for item in manifest.items
        ],
    }


def _judges(result: ItemResult) -> set[str]:
    """The judges of one item, by their own names."""
    judges = result.score.breakdown.get("judges") if result.score is not None else None
    of_reward = {str(name) for name in judges.values() if name} if isinstance(judges, dict) else set()
    return of_reward | {one.judge for one in result.judged.values()}


def _item(item: Item, result: ItemResult | None, score: Mean) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "prompt": item.task.question,
        "score": score.value,
        "judged": score.judged,
        "of": score.of,
        "criteria": [
            {
                "name": name,
                "text": text,
                **(
                    result.verdicts[name].model_dump(mode="json")
                    if result and name in result.verdicts
                    else {"status": "open"}
                ),
            }
            for name, text in item.criteria.items()
        ],
        "reward": result.score.model_dump(mode="json") if result and result.score else None,
        "failure": result.failure.model_dump(mode="json") if result and result.failure else None,
    }


def terms(scores: Iterable[Score]) -> dict[str, Mean]:
    """The mean of each term of the reward, over the documents that have it."""
    known = [score for score in scores if score.reward is not None]
    names = dict.fromkeys(
        name
        for score in known
        for name, value in score.breakdown.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    return {name: mean([_number(score, name) for score in known if name in score.breakdown], len(known))
            for name in names}  # fmt: skip


def _number(score: Score, name: str) -> float:
    value = score.breakdown[name]
    return float(value) if isinstance(value, int | float) else float("nan")


@dataclass(frozen=True)
class Mean:
    """`value`: None when nothing was judged; `low`, `high`: the interval, for at least two items."""

    value: float | None
    judged: int
    of: int
    low: float | None = None
    high: float | None = None


def mean(points: Sequence[float], of: int) -> Mean:
    """The mean of `points`, which are so many of `of`."""
    return Mean(sum(points) / len(points) if points else None, len(points), of)


def overall(items: Sequence[Sequence[float]], of: int) -> Mean:
    """The mean over all points of all items, with a bootstrap interval.

    Percentile bootstrap over items (10,000 resamples, seed 0, 95 %). Items are resampled and not points,
    since the points of an item share its document.
    """
    plain = mean([point for points in items for point in points], of)
    sums = np.array([sum(points) for points in items if points], dtype=float)
    counts = np.array([len(points) for points in items if points], dtype=float)
    if len(sums) < 2:
        return plain
    drawn = np.random.default_rng(SEED).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    ends = [float(np.quantile(means, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    return Mean(plain.value, plain.judged, plain.of, ends[0], ends[1])
