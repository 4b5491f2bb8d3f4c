"""The judges as models behind any OpenAI-compatible chat endpoint (vLLM, SGLang, OpenAI).

The answer is bound to a JSON schema whose axes may only be 1 to 5, so a server that enforces schemas cannot
answer unreadably. Start vLLM with `--structured-outputs-config.disable_any_whitespace true`, or a weak
model may fill its tokens with blanks. `rewards.judges.structured` asks, and types what fails.
"""

from __future__ import annotations

from typing import Any

from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import data_uri
from rewards.judges.prompts import Chat, image_chat, text_chat
from rewards.judges.structured import answer
from rewards.settings import JudgeEndpoint, JudgeSettings
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict
from workers.jobs import JobContext
from workers.messages import Success


def judge_text(payload: JudgeTextPayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Ask the text judge."""
    return verdict_of(settings.text, settings.text_url, text_chat(payload), TextVerdict, ctx, "text judge")


def judge_image(payload: JudgeImagePayload, settings: JudgeSettings, ctx: JobContext) -> Success:
    """Ask the image judge, the pictures resized here."""
    judge = settings.image
    chat = image_chat(payload, lambda ref: data_uri(ctx.blobs, ref, judge.max_image_pixels), judge.max_images)
    return verdict_of(judge, settings.image_url, chat, ImageVerdict, ctx, "image judge")


def schema(verdict: type[Verdict]) -> dict[str, Any]:
    """The JSON schema of a verdict: every axis required, each one of 1, 2, 3, 4, 5."""
    return {
        "type": "object",
        "properties": {axis: {"type": "integer", "enum": [1, 2, 3, 4, 5]} for axis in verdict.axes()},
        "required": list(verdict.axes()),
        "additionalProperties": False,
    }


def verdict_of(
    judge: JudgeEndpoint, url: str, chat: Chat, verdict: type[Verdict], ctx: JobContext, name: str
) -> Success:
    """Ask the model at `url` for a verdict on `chat`. Raises `InfrastructureFault`."""
    data, model = answer(judge, url, chat, schema(verdict), verdict.__name__, ctx, name)
    return Success(
        verdict=verdict.read(data, provider=name).scores, source={"judge": "openai", "model": model}
    )
