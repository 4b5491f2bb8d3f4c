"""The result of one benchmark item. Data and pure functions.

Invariants:
- A criterion is judged 0, 1 or 2 with a reason, refused and worth 0, or missing with a cause.
- A missing verdict (infrastructure) is left out of every mean. A refused one (model) counts 0 in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from evaluation.rubric.verdict import MAX_SCORE, Judgement
from policy.scoring import Score
from workers.errors import Cause, Fault
from workers.messages import Failure, Message

TOP = 10.0  # LLMI-Bench's scale: every criterion met


class Missing(Message):
    """A criterion without a verdict: the failure, and the number of requests made for it."""

    status: Literal["missing"] = "missing"
    failure: Failure
    attempts: int = Field(ge=0)


class Refused(Message):
    """A criterion that counts 0 by the evaluated model's fault: it wrote no document, or one that the judge's
    service refuses.
    """

    status: Literal["refused"] = "refused"
    failure: Failure


CriterionResult = Annotated[Judgement | Missing | Refused, Field(discriminator="status")]


class ItemResult(Message):
    """The result of one round of one item.

    `round`: counts the times that the item was posted, from 0. `failure`: why there is no document; the
    model's fault counts 0 and completes the item. `verdicts`: by criterion (rubric). `score`: the reward, or
    the failures that mask it; `attempts`: how often it was requested. `finished`: Unix seconds.
    """

    version: Literal[1] = 1
    item_id: str
    round: int = Field(ge=0)
    document_id: str = ""
    failure: Failure | None = None
    verdicts: dict[str, CriterionResult] = Field(default_factory=dict)
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
        """Whether the author refused, so that there is no document by the model's fault."""
        return self.failure is not None and self.failure.fault is Fault.MODEL

    @property
    def refused(self) -> int:
        """The number of points that are 0 by a refusal."""
        if self.unwritten:
            return len(self.verdicts) or 1
        return sum(isinstance(one, Refused) for one in self.verdicts.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        if (self.failure is not None and not self.unwritten) or self.missing:
            return False
        return bool(self.verdicts) or (self.score is not None and self.score.reward is not None)

    @property
    def causes(self) -> list[Cause]:
        """The causes of what is missing: of the document, of each criterion, or of the masked reward."""
        if self.failure is not None:
            return [] if self.unwritten else [self.failure.cause]
        found = [one.failure.cause for one in self.missing.values()]
        return found + [failure.cause for failure in (self.score.masked_by if self.score else ())]

    @property
    def points(self) -> list[float]:
        """The points of the benchmark's score: one per criterion that is not missing, or the reward."""
        if self.score is not None:
            return [] if self.score.reward is None else [self.score.reward]
        return [
            TOP * one.score / MAX_SCORE if isinstance(one, Judgement) else 0.0
            for one in self.verdicts.values()
            if not isinstance(one, Missing)
        ]


def unwritten(item_id: str, round_: int, failure: Failure, criteria: Iterable[str]) -> ItemResult:
    """The result of an item that the author refused to write: every criterion, or else the reward, is 0."""
    verdicts: dict[str, CriterionResult] = {name: Refused(failure=failure) for name in criteria}
    score = None if verdicts else Score(reward=0.0)
    return ItemResult(item_id=item_id, round=round_, failure=failure, verdicts=verdicts, score=score)


def failures(results: Iterable[ItemResult]) -> dict[str, int]:
    """The number of missing parts by cause, most frequent first."""
    counted = Counter(cause.value for result in results for cause in result.causes)
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))
