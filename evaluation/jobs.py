"""The jobs of an evaluation: `evaluate` does one benchmark item, `judge_rubric` judges one criterion.

Invariant: importing this registers the jobs and loads nothing heavy.
"""

from __future__ import annotations

from evaluation.payloads import EvaluatePayload, RubricPayload
from workers.jobs import JobContext, job
from workers.messages import Success


@job("evaluate", EvaluatePayload)
def evaluate(payload: EvaluatePayload, ctx: JobContext) -> Success:
    """Write the item's document and have it judged; the result lies in the batch before this returns."""
    from evaluation.item import run

    return run(payload, ctx)


@job("judge_rubric", RubricPayload)
def judge_rubric(payload: RubricPayload, ctx: JobContext) -> Success:
    """The configured judge's verdict on one criterion."""
    from evaluation.rubric import judge

    return judge(payload, ctx)
