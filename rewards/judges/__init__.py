"""The judges as queue jobs: `judge_text` grades the text, `judge_image` the images.

May import `rewards.{axes,settings,verdicts}`, `policy` and `workers`.

Invariants:
- A verdict is an integer from 1 to 5 for each axis, with expected scores where the judge has them, or a typed
  failure.
- What a model or a service wrote reaches a judge model only inside a fence (`rewards.judges.fence`).
- An outcome names its judge (`Success.source`). A request that names another judge than the worker's fails.
- Importing this registers the jobs and loads no large library.
"""

from __future__ import annotations

from rewards import axes
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.settings import JudgeEndpoint, JudgeSettings
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.jobs import JobContext, job
from workers.messages import Success
from workers.providers.http import keys

TEXT_KIND = "judge_text"
IMAGE_KIND = "judge_image"


def warm_image() -> None:
    """Start an image decoder before the first request."""
    from workers import images

    images.warm("store")


def _outside(judge: JudgeEndpoint, url: str) -> str:
    return keys.service_name(judge.provider, url) if judge.provider == "openai" else ""


def text_judge() -> str:
    """The outside service of the text judge; "" for rules."""
    settings = JudgeSettings.load()
    return _outside(settings.text, settings.text_url)


def image_judge() -> str:
    """The outside service of the image judge; "" for rules."""
    settings = JudgeSettings.load()
    return _outside(settings.image, settings.image_url)


@job(TEXT_KIND, JudgeTextPayload, provider=text_judge)
def judge_text(payload: JudgeTextPayload, ctx: JobContext) -> Success:
    """The configured text judge's verdict."""
    settings = JudgeSettings.load()
    _check(payload, settings.text)
    if settings.text.provider == "openai":
        from rewards.judges import openai

        return openai.judge_text(payload, settings, ctx)
    from rewards.judges import rules

    return rules.judge_text(payload)


@job(IMAGE_KIND, JudgeImagePayload, warm=warm_image, provider=image_judge)
def judge_image(payload: JudgeImagePayload, ctx: JobContext) -> Success:
    """The configured image judge's verdict."""
    settings = JudgeSettings.load()
    _check(payload, settings.image)
    if settings.image.provider == "openai":
        from rewards.judges import openai

        return openai.judge_image(payload, settings, ctx)
    from rewards.judges import rules

    return rules.judge_image(payload, ctx)


def _check(payload: JudgeTextPayload | JudgeImagePayload, judge: JudgeEndpoint) -> None:
    """Raises `InfrastructureFault` when this worker does not have the judge and the axes of the request."""
    if payload.judge not in ("", judge.name):
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"the request names the judge {payload.judge!r} and this worker's configuration names "
            f"{judge.name!r}; start the worker with the configuration of the run or evaluation",
        )
    try:
        axes.named(payload.axes)
    except ConfigError as error:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE, f"{error}; install on this worker the package that has the axis"
        ) from error
