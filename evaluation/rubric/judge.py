"""The judge of criteria that the configuration names: choose it, check its settings.

Invariant: a judge that the batch does not name gives no verdict.
"""

from __future__ import annotations

from evaluation.payloads import RubricPayload, judge_name
from evaluation.settings import RUBRIC_URL_ENV, RubricSettings
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import Success
from workers.providers.http import endpoint


def judge(payload: RubricPayload, ctx: JobContext) -> Success:
    """Get the verdict of this worker's judge. Raises `InfrastructureFault`, `ModelFault` for a refusal."""
    settings = RubricSettings.load()
    if judge_name(settings) != payload.judge:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"the batch names the judge {payload.judge!r} and this worker's configuration names "
            f"{judge_name(settings)!r}; start the worker with the batch's configuration",
        )
    if settings.provider == "openai":
        from evaluation.rubric import openai

        return openai.judge(payload, settings, ctx)
    from evaluation.rubric import rules

    return rules.judge(payload)


def check(rubric: RubricSettings) -> list[str]:
    """The problems of the judge's settings, each with what to do. No network."""
    if rubric.provider != "openai":
        return []
    return endpoint.problems("rubric", rubric.url, rubric.model, rubric.api_key_env, url_env=RUBRIC_URL_ENV)
