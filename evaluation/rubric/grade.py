"""The judge of criteria: 0, 1 or 2 with a reason, from whichever judge is configured.

Invariants: a score that is not 0, 1 or 2, or comes without a reason, is VERDICT_UNREADABLE, never repaired; a
judge that the batch did not ask for says nothing.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from evaluation.batch.results import BEST, Judgement
from evaluation.payloads import RubricPayload, judge_name
from evaluation.settings import RUBRIC_URL_ENV, RubricSettings
from rewards.verdicts import unreadable
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import Message, Outcome, Success
from workers.providers.http import keys


class CriterionVerdict(Message):
    """What a judge answers."""

    reason: str = Field(min_length=1)
    score: int = Field(strict=True, ge=0, le=BEST)

    @classmethod
    def read(cls, data: object, *, provider: str = "") -> CriterionVerdict:
        """Raises `InfrastructureFault(VERDICT_UNREADABLE)`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise unreadable(error, cls, provider) from error

    def success(self, judge: str) -> Success:
        """As a job's outcome. `judge`: who spoke."""
        return Success(verdict={"score": self.score}, source={"judge": judge, "reason": self.reason})


def judge(payload: RubricPayload, ctx: JobContext) -> Success:
    """Ask the judge of this worker's configuration. Raises `InfrastructureFault`."""
    settings = RubricSettings.load()
    if judge_name(settings) != payload.judge:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"the batch wants the judge {payload.judge!r} and this worker's configuration names "
            f"{judge_name(settings)!r}; start the worker with the batch's configuration",
        )
    if settings.provider == "openai":
        from evaluation.rubric.openai import ask

        return ask(payload, settings, ctx)
    from evaluation.rubric.rules import ask as go_by_rules

    return go_by_rules(payload)


def read(outcome: Outcome) -> Judgement:
    """The judgement in a successful outcome. Raises `InfrastructureFault(VERDICT_UNREADABLE)`."""
    assert isinstance(outcome.result, Success)
    source = outcome.result.source
    said = {**(outcome.result.verdict or {}), "reason": source.get("reason")}
    verdict = CriterionVerdict.read(said, provider="rubric judge")
    return Judgement(score=verdict.score, reason=verdict.reason, judge=str(source.get("judge", "")))


def check(rubric: RubricSettings) -> list[str]:
    """What would stop the judge from working, each problem with its cure; empty when nothing would."""
    if rubric.provider != "openai":
        return []
    problems, url = [], urlsplit(rubric.url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        problems.append(
            f"rubric.base_url (or {RUBRIC_URL_ENV}) is no http(s) URL; set it to one such as "
            "http://host:8000/v1"
        )
    if not rubric.model:
        problems.append("rubric.model is empty; set it to the name under which the endpoint serves it")
    variable = keys.key_env(rubric.api_key_env, rubric.url)
    if variable and not os.environ.get(variable, "").strip():
        problems.append(f"{variable}, the key of rubric's endpoint, is not set; export it")
    return problems
