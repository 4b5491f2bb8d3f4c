"""The jobs of an evaluation: `evaluate` for one benchmark item, `judge_rubric` for one criterion.

Invariant: importing this registers the jobs and loads nothing heavy.
"""

from __future__ import annotations

from evaluation.payloads import EVALUATE_KIND, RUBRIC_KIND, EvaluatePayload, RubricPayload
from evaluation.settings import RubricSettings
from workers.jobs import JobContext, job
from workers.messages import Success
from workers.providers.http import keys


@job(EVALUATE_KIND, EvaluatePayload)
def evaluate(payload: EvaluatePayload, ctx: JobContext) -> Success:
    """Write the item's document, judge it, and store the result in the batch."""
    from evaluation.batch.item import run

    return run(payload, ctx)


def rubric_judge() -> str:
    """The outside service of the judge of criteria; "" for rules."""
    settings = RubricSettings.load()
    return keys.service_name(settings.provider, settings.url) if settings.provider == "openai" else ""


@job(RUBRIC_KIND, RubricPayload, provider=rubric_judge)
def judge_rubric(payload: RubricPayload, ctx: JobContext) -> Success:
    """The configured judge's verdict on one criterion."""
    from evaluation.rubric.judge import judge

    return judge(payload, ctx)
