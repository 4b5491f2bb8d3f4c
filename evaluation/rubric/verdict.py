"""The verdict on one criterion, as a judge answers it and as an evaluation stores it.

Invariant: a score that is not 0, 1 or 2, or that comes without a reason, is `VERDICT_UNREADABLE`. It is never
repaired.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from rewards.verdicts import unreadable
from workers.messages import Message, Outcome, Success

MAX_SCORE = 2


class Judgement(Message):
    """A judged criterion. `judge`: the model's name as the server reports it, or "rules"."""

    status: Literal["judged"] = "judged"
    score: int = Field(strict=True, ge=0, le=MAX_SCORE)
    reason: str
    judge: str


class CriterionVerdict(Message):
    """A judge's answer."""

    reason: str = Field(min_length=1)
    score: int = Field(strict=True, ge=0, le=MAX_SCORE)

    @classmethod
    def read(cls, data: object, *, provider: str = "") -> CriterionVerdict:
        """Validate an answer. Raises `InfrastructureFault(VERDICT_UNREADABLE)`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise unreadable(error, cls, provider) from error

    def success(self, judge: str) -> Success:
        """The job's outcome. `judge`: the name that the judgement records."""
        return Success(verdict={"score": self.score}, source={"judge": judge, "reason": self.reason})


def judgement(outcome: Outcome) -> Judgement:
    """The judgement in a successful outcome. Raises `InfrastructureFault(VERDICT_UNREADABLE)`."""
    assert isinstance(outcome.result, Success)
    source = outcome.result.source
    answer = {**(outcome.result.verdict or {}), "reason": source.get("reason")}
    verdict = CriterionVerdict.read(answer, provider="rubric judge")
    return Judgement(score=verdict.score, reason=verdict.reason, judge=str(source.get("judge", "")))
