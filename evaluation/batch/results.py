"""What became of one benchmark item, as data, and how items become one score. Pure.

Invariants: a criterion is judged 0, 1 or 2 with a reason, refused and worth 0, or missing with a cause; what
is missing (infrastructure's fault) is in no mean, what is refused (the model's fault) is in every one; every
mean comes with how many it is over, of how many; nothing judged, no number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evaluation.rubric.verdict import MAX_SCORE, Judgement
from policy.scoring import Score
from workers.errors import Cause, Fault
from workers.messages import Failure, Message

TOP = 10.0  # LLMI-Bench's scale: every criterion fulfilled
RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95


class Missing(Message):
    """A criterion without a verdict: why, and how many requests were made for it."""

    status: Literal["missing"] = "missing"
    failure: Failure
    attempts: int = Field(ge=0)


class Refused(Message):
    """A criterion that counts 0 by the evaluated model's own fault: it wrote no document, or one that the
    judge's service refuses.
    """

    status: Literal["refused"] = "refused"
    failure: Failure


Verdict = Annotated[Judgement | Missing | Refused, Field(discriminator="status")]


class ItemResult(Message):
    """The end of one round of one item.

    `failure`: why there is no document; the model's own fault counts 0 and ends the item. `verdicts`: by
    criterion (a rubric). `score`: the reward, or what masks it; `attempts`: how often it was asked for.
    `round` counts the times the item was posted, from 0.
    """

    version: Literal[1] = 1
    item_id: str
    round: int = Field(ge=0)
    document_id: str = ""
    failure: Failure | None = None
    verdicts: dict[str, Verdict] = Field(default_factory=dict)
    score: Score | None = None
    attempts: int = Field(default=0, ge=0)
    finished: float = 0.0

    @property
    def judged(self) -> dict[str, Judgement]:
        return {name: one for name, one in self.verdicts.items() if isinstance(one, Judgement)}

    @property
    def missing(self) -> dict[str, Missing]:
        return {name: one for name, one in self.verdicts.items() if isinstance(one, Missing)}

    @property
    def unwritten(self) -> bool:
        """The author refused: there is no document by the model's own fault."""
        return self.failure is not None and self.failure.fault is Fault.MODEL

    @property
    def refused(self) -> int:
        """How many of its points are 0 because of a refusal."""
        if self.unwritten:
            return len(self.verdicts) or 1
        return sum(isinstance(one, Refused) for one in self.verdicts.values())

    @property
    def complete(self) -> bool:
        """Nothing is left to be done."""
        if (self.failure is not None and not self.unwritten) or self.missing:
            return False
        return bool(self.verdicts) or (self.score is not None and self.score.reward is not None)

    @property
    def causes(self) -> list[Cause]:
        """Why things are missing: the document, each missing criterion, or what masks the reward."""
        if self.failure is not None:
            return [] if self.unwritten else [self.failure.cause]
        found = [one.failure.cause for one in self.missing.values()]
        return found + [failure.cause for failure in (self.score.masked_by if self.score else ())]

    @property
    def points(self) -> list[float]:
        """What counts towards the benchmark's score: one number per criterion that is not missing, or the
        reward.
        """
        if self.score is not None:
            return [] if self.score.reward is None else [self.score.reward]
        return [
            TOP * one.score / MAX_SCORE if isinstance(one, Judgement) else 0.0
            for one in self.verdicts.values()
            if not isinstance(one, Missing)
        ]


def unwritten(item_id: str, round_: int, failure: Failure, criteria: Iterable[str]) -> ItemResult:
    """The result of an item whose author refused: 0 for every criterion, or as the reward where it has
    none.
    """
    verdicts: dict[str, Verdict] = {name: Refused(failure=failure) for name in criteria}
    score = None if verdicts else Score(reward=0.0)
    return ItemResult(item_id=item_id, round=round_, failure=failure, verdicts=verdicts, score=score)


@dataclass(frozen=True)
class Mean:
    """`value` is None when nothing was judged; `low` and `high`: its interval, where there are two items."""

    value: float | None
    judged: int
    of: int
    low: float | None = None
    high: float | None = None


def mean(points: Sequence[float], of: int) -> Mean:
    """The mean over what was judged, `of` how many."""
    return Mean(sum(points) / len(points) if points else None, len(points), of)


def overall(items: Sequence[Sequence[float]], of: int) -> Mean:
    """The mean over all points of all items, with a bootstrap interval.

    Percentile bootstrap over items (10,000 resamples, seed 0, 95 %): an item's points share its document, so
    items and not points are drawn anew.
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


def terms(scores: Iterable[Score]) -> dict[str, Mean]:
    """The mean of each of the reward's own terms over the documents that have it."""
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


def failures(results: Iterable[ItemResult]) -> dict[str, int]:
    """How often each cause left something missing, most frequent first."""
    counted = Counter(cause.value for result in results for cause in result.causes)
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))
