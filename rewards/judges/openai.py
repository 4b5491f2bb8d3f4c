"""The judges as models behind any OpenAI-compatible chat endpoint (vLLM, SGLang, OpenAI).

The answer is bound to a JSON schema whose axes may only be 1 to 5, so a server that enforces schemas cannot
answer unreadably. Start vLLM with `--structured-outputs-config.disable_any_whitespace true`, or a weak
model may fill its tokens with blanks. Invariants: never past the request's deadline; what does not parse is
VERDICT_UNREADABLE, never repaired; network failures are typed and retried by `workers.providers.api`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import data_uri
from rewards.judges.prompts import Chat, image_chat, text_chat
from rewards.settings import JudgeEndpoint, JudgeSettings
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import Success
from workers.providers import keys
from workers.providers.api import Call, ask
from workers.providers.http import run_until


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
    if not url:
        raise InfrastructureFault(Cause.PROVIDER_DOWN, "no base_url is configured", provider=name)
    key = keys.required(judge.api_key_env, name) if judge.api_key_env else ""
    body: dict[str, Any] = {
        "model": judge.model,
        "messages": chat,
        "temperature": judge.temperature,
        "max_tokens": judge.max_tokens,
        "seed": ctx.request.seed,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": verdict.__name__, "strict": True, "schema": schema(verdict)},
        },
    }
    if judge.enable_thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": judge.enable_thinking}
    call = Call(
        provider=name,
        method="POST",
        url=f"{url}/chat/completions",
        deadline=ctx.request.deadline,
        body=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        key=key,
    )
    answer = run_until(ctx.request.deadline, ask(call))
    scores = _read(answer, verdict, name).scores
    return Success(verdict=scores, source={"judge": "openai", "model": _model(answer, judge)})


def _read(answer: Mapping[str, Any], verdict: type[Verdict], name: str) -> Verdict:
    try:
        choice = answer["choices"][0]
        content, ended = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InfrastructureFault(
            Cause.BAD_ANSWER, "the answer has no choices[0].message", provider=name
        ) from error
    try:
        data = json.loads(content)
    except (TypeError, ValueError) as error:
        shown = str(content)[:200]
        detail = f"not a JSON verdict (finish_reason {ended}): {shown!r}"
        raise InfrastructureFault(Cause.VERDICT_UNREADABLE, detail, provider=name) from error
    return verdict.read(data, provider=name)


def _model(answer: Mapping[str, Any], judge: JudgeEndpoint) -> str:
    """The model that answered, as the server names it."""
    served = answer.get("model")
    return served if isinstance(served, str) and served else judge.model
