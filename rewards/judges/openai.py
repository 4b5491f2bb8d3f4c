"""The judges as models behind any OpenAI-compatible chat endpoint (vLLM, SGLang, OpenAI).

A JSON schema limits each axis to 1..5, so a server that enforces schemas cannot give an unreadable answer.
Start vLLM with `--structured-outputs-config.disable_any_whitespace true`, else a weak model may fill its
tokens with blanks. `rewards.judges.served.structured` sends the request and types the failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import JsonValue

from rewards.judges import shorten
from rewards.judges.fence import image
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import blank_uri, data_uri
from rewards.judges.prompts import Chat, image_chat, text_chat
from rewards.judges.served import logprobs, replies
from rewards.judges.served.reasons import reasons
from rewards.judges.served.structured import Shorter, answer
from rewards.settings import JudgeEndpoint, JudgeSettings
from rewards.verdicts import BEST, WORST, ImageVerdict, TextVerdict, Verdict, with_axes
from workers.jobs import JobContext
from workers.messages import Success

SCALE = range(WORST, BEST + 1)
P = TypeVar("P", bound=shorten.Payload)


def judge_text(payload: JudgeTextPayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Get the text judge's verdict."""

    def chat(shown: JudgeTextPayload, pixels: int, most_images: int) -> Chat:
        return text_chat(shown)

    judge, whole = settings.text, text_chat(payload)
    smaller = shorter(payload, chat, judge.max_image_pixels, judge.max_images)
    verdict = with_axes(TextVerdict, payload.axes)
    return verdict_of(
        judge, settings.text_url, whole, verdict, ctx, "text judge", smaller, with_reasons=settings.reasons
    )


def judge_image(payload: JudgeImagePayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Get the image judge's verdict; pictures are scaled down here."""

    def chat(shown: JudgeImagePayload, pixels: int, most_images: int) -> Chat:
        return image_chat(shown, lambda ref: data_uri(ctx.blobs, ref, pixels), most_images)

    judge = settings.image
    whole = chat(payload, judge.max_image_pixels, judge.max_images)
    smaller = shorter(payload, chat, judge.max_image_pixels, judge.max_images)
    verdict = with_axes(ImageVerdict, payload.axes)
    return verdict_of(
        judge, settings.image_url, whole, verdict, ctx, "image judge", smaller, with_reasons=settings.reasons
    )


def shorter(payload: P, chat: Callable[[P, int, int], Chat], pixels: int, most_images: int) -> Shorter:
    """`payload` made smaller, for a judge that refuses it.

    `chat`: the prompt of a payload, with at most so many pixels an image and so many images. `pixels`,
    `most_images`: the configured limits.
    """

    def without_document() -> Chat:
        bare = chat(shorten.without_document(payload), shorten.SHORT_PIXELS, 1)
        if getattr(
            payload, "images", ()
        ):  # else a judge that takes no images would seem to refuse the document
            bare[-1]["content"].insert(-1, image(blank_uri()))
        return bare

    def document(short: bool, limit: int | None) -> Chat:
        images = most_images if limit is None else min(limit, most_images)
        if short:
            return chat(shorten.for_judge(payload), min(pixels, shorten.SHORT_PIXELS), images)
        return chat(payload, pixels, images)

    return Shorter(document, without_document)


def schema(verdict: type[Verdict]) -> dict[str, Any]:
    """The JSON schema of a verdict: every axis is required, and is one of 1, 2, 3, 4, 5."""
    return {
        "type": "object",
        "properties": {axis: {"type": "integer", "enum": list(SCALE)} for axis in verdict.axes()},
        "required": list(verdict.axes()),
        "additionalProperties": False,
    }


def verdict_of(
    judge: JudgeEndpoint,
    url: str,
    chat: Chat,
    verdict: type[Verdict],
    ctx: JobContext,
    name: str,
    shorter: Shorter | None = None,
    *,
    with_reasons: bool = False,
) -> Success:
    """Get the verdict of the model at `url` on `chat`. Raises as `structured.answer`.

    The source has the expected scores (`expected`) where the endpoint gives log-probabilities, and the
    `reasons` where they are requested.
    """
    answered = answer(
        judge, url, chat, schema(verdict), verdict.__name__, ctx, name, shorter,
        with_logprobs=judge.expected_scores,
    )  # fmt: skip
    scores = verdict.read(answered.data, provider=name).scores
    source: dict[str, JsonValue] = {"judge": "openai", "model": answered.model}
    if answered.shortened:
        source["shortened"] = answered.shortened
    if judge.expected_scores and (
        means := logprobs.expected(answered.reply, replies.text(answered.reply), scores, SCALE)
    ):
        source["expected"] = {**means}
    if with_reasons:
        source |= reasons(judge, url, answered.chat, scores, ctx, name)
    return Success(verdict=scores, source=source)
