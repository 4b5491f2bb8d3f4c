"""The judges as queue jobs: `judge_text` reads the document, `judge_image` also looks at its pictures.

Invariants: a verdict is integers from 1 to 5 on the axes of `rewards.verdicts`, or a typed failure; a job
says which judge spoke (`Success.source`), and a judge that was not asked for says nothing. Importing this
registers the jobs and loads nothing heavy.
"""

from __future__ import annotations

from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.settings import JudgeEndpoint, JudgeSettings
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext, job
from workers.messages import Success
from workers.providers.http import keys

TEXT_KIND = "judge_text"
IMAGE_KIND = "judge_image"


def warm_image() -> None:
    """Start a decoder before the first picture."""
    from workers import images

    images.warm("store")


def _outside(judge: JudgeEndpoint, url: str) -> str:
    return keys.service(judge.provider, url) if judge.provider == "openai" else ""


def text_judge() -> str:
    """The service that judges texts, "" where rules do."""
    settings = JudgeSettings.load()
    return _outside(settings.text, settings.text_url)


def image_judge() -> str:
    """The service that judges pictures, "" where rules do."""
    settings = JudgeSettings.load()
    return _outside(settings.image, settings.image_url)


@job(TEXT_KIND, JudgeTextPayload, provider=text_judge)
def judge_text(payload: JudgeTextPayload, ctx: JobContext) -> Success:
    """The configured text judge's verdict."""
    settings = JudgeSettings.load()
    _wanted(payload.judge, settings.text)
    if settings.text.provider == "openai":
        from rewards.judges import openai

        return openai.judge_text(payload, settings, ctx)
    from rewards.judges import rules

    return rules.judge_text(payload)


@job(IMAGE_KIND, JudgeImagePayload, warm=warm_image, provider=image_judge)
def judge_image(payload: JudgeImagePayload, ctx: JobContext) -> Success:
    """The configured image judge's verdict."""
    settings = JudgeSettings.load()
    _wanted(payload.judge, settings.image)
    if settings.image.provider == "openai":
        from rewards.judges import openai

        return openai.judge_image(payload, settings, ctx)
    from rewards.judges import rules

    return rules.judge_image(payload, ctx)


def _wanted(name: str, judge: JudgeEndpoint) -> None:
    if name not in ("", judge.name):
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"the judge {name!r} is wanted and this worker's configuration names {judge.name!r}; start the "
            "worker with the configuration of the run or evaluation",
        )
