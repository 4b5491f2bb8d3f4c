"""The judge of criteria that the configuration names: choose it, check its settings.

Invariant: a judge that the batch does not name gives no verdict.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from evaluation.payloads import RubricPayload, judge_name
from evaluation.settings import RUBRIC_URL_ENV, RubricSettings
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import Success
from workers.providers.http import keys


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
    """The problems of the judge's settings, each with its cure. No network."""
    if rubric.provider != "openai":
        return []
    problems, url = [], urlsplit(rubric.url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        problems.append(
            f"rubric.base_url (or {RUBRIC_URL_ENV}) is not an http(s) URL; set it to one such as "
            "http://host:8000/v1"
        )
    if not rubric.model:
        problems.append("rubric.model is empty; set it to the name under which the endpoint serves it")
    variable = keys.key_env(rubric.api_key_env, rubric.url)
    if variable and not os.environ.get(variable, "").strip():
        problems.append(f"{variable}, the key of rubric's endpoint, is not set; export it")
    return problems
