"""One question to a judge behind an OpenAI-compatible chat endpoint, its answer bound to a JSON schema.

Invariants: never past the request's deadline; what does not parse is VERDICT_UNREADABLE, never repaired;
network failures are typed and retried by `workers.providers.api`; a key stays in its header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rewards.judges.prompts import Chat
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.providers import keys
from workers.providers.api import Call, ask, parsed
from workers.providers.http import run_until


class Endpoint(Protocol):
    """What a judge's settings say about its model."""

    @property
    def model(self) -> str: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_tokens(self) -> int: ...


def answer(
    judge: Endpoint,
    url: str,
    chat: Chat,
    schema: Mapping[str, Any],
    schema_name: str,
    ctx: JobContext,
    name: str,
) -> tuple[object, str]:
    """What the model answered, parsed, and the model's name as the server gives it.

    `url`: the endpoint up to its version; `name`: the judge in messages. Raises `InfrastructureFault`.
    """
    if not url:
        raise InfrastructureFault(Cause.PROVIDER_DOWN, "no base_url is configured", provider=name)
    variable = keys.key_env(judge.api_key_env, url)
    key = keys.required(variable, name) if variable else ""
    body: dict[str, Any] = {
        "model": judge.model,
        "messages": chat,
        "temperature": judge.temperature,
        "max_tokens": judge.max_tokens,
        "seed": ctx.request.seed,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": schema_name, "strict": True, "schema": schema},
        },
    }
    thinking = getattr(judge, "enable_thinking", None)  # not every judge's settings have it
    if thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": thinking}
    call = Call(
        provider=name,
        method="POST",
        url=f"{url}/chat/completions",
        deadline=ctx.deadline,
        body=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        key=key,
    )
    said = run_until(ctx.deadline, ask(call))
    return _content(call, said), call.said(said.get("model")) or judge.model


def _content(call: Call, said: Mapping[str, Any]) -> object:
    """The answer's JSON, the texts at its top as `Call.said` would have them, but uncut."""
    try:
        choice = said["choices"][0]
        content, ended = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InfrastructureFault(
            Cause.BAD_ANSWER, "the answer has no choices[0].message", provider=call.provider
        ) from error
    try:
        verdict = parsed(content)
    except (TypeError, ValueError) as error:
        shown, why = call.said(content)[:200], call.said(ended) or "none"
        detail = f"not a JSON verdict (finish_reason {why}): {shown!r}"
        raise InfrastructureFault(Cause.VERDICT_UNREADABLE, detail, provider=call.provider) from error
    if not isinstance(verdict, dict):
        return verdict
    return {k: keys.blanked(v, call.key) if isinstance(v, str) else v for k, v in verdict.items()}
