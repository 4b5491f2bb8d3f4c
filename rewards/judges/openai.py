"""The judges as models behind any OpenAI-compatible chat endpoint (vLLM, SGLang, OpenAI).

The answer is bound to a JSON schema whose axes may only be 1 to 5, so a server that enforces schemas cannot
answer unreadably. Start vLLM with `--structured-outputs-config.disable_any_whitespace true`, or a weak
model may fill its tokens with blanks. `rewards.judges.structured` asks, and types what fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import JsonValue

from rewards.judges import shorten
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import blank_uri, data_uri
from rewards.judges.prompts import Chat, image, image_chat, text_chat
from rewards.judges.structured import Shorter, answer
from rewards.settings import JudgeEndpoint, JudgeSettings
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict
from workers.jobs import JobContext
from workers.messages import Success

P = TypeVar("P", bound=shorten.Payload)


def judge_text(payload: JudgeTextPayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Ask the text judge."""

    def chat(shown: JudgeTextPayload, pixels: int, most_images: int) -> Chat:
        return text_chat(shown)

    judge, whole = settings.text, text_chat(payload)
    smaller = shorter(payload, chat, judge.max_image_pixels, judge.max_images)
    return verdict_of(judge, settings.text_url, whole, TextVerdict, ctx, "text judge", smaller)


def judge_image(payload: JudgeImagePayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Ask the image judge, the pictures resized here."""

    def chat(shown: JudgeImagePayload, pixels: int, most_images: int) -> Chat:
        return image_chat(shown, lambda ref: data_uri(ctx.blobs, ref, pixels), most_images)

    judge = settings.image
    whole = chat(payload, judge.max_image_pixels, judge.max_images)
    smaller = shorter(payload, chat, judge.max_image_pixels, judge.max_images)
    return verdict_of(judge, settings.image_url, whole, ImageVerdict, ctx, "image judge", smaller)


def shorter(payload: P, chat: Callable[[P, int, int], Chat], pixels: int, most_images: int) -> Shorter:
    """`payload` made smaller for a judge that refuses it. `chat` writes the prompt of a payload, with at most
    so many pixels an image and so many images; `pixels` and `most_images`: the configured ones.
    """

    def without_document() -> Chat:
        bare = chat(shorten.without_document(payload), shorten.SHORT_PIXELS, 1)
        if getattr(payload, "images", ()):  # a judge that takes no images is not refusing the document
            bare[-1]["content"].insert(-1, image(blank_uri()))
        return bare

    def document(short: bool, limit: int | None) -> Chat:
        images = most_images if limit is None else min(limit, most_images)
        if short:
            return chat(shorten.for_judge(payload), min(pixels, shorten.SHORT_PIXELS), images)
        return chat(payload, pixels, images)

    return Shorter(document, without_document)


def schema(verdict: type[Verdict]) -> dict[str, Any]:
    """The JSON schema of a verdict: every axis required, each one of 1, 2, 3, 4, 5."""
    return {
        "type": "object",
        "properties": {axis: {"type": "integer", "enum": [1, 2, 3, 4, 5]} for axis in verdict.axes()},
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
) -> Success:
    """Ask the model at `url` for a verdict on `chat`. Raises as `structured.answer`."""
    said = answer(judge, url, chat, schema(verdict), verdict.__name__, ctx, name, shorter)
    source: dict[str, JsonValue] = {"judge": "openai", "model": said.model}
    if said.shortened:
        source["shortened"] = said.shortened
    return Success(verdict=verdict.read(said.data, provider=name).scores, source=source)
