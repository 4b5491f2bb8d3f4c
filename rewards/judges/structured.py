"""One question to a judge behind an OpenAI-compatible chat endpoint, its answer bound to a JSON schema.

Invariants: never past the request's deadline; network failures are typed and retried by
`workers.providers.http.api`; a key stays in its header.

A judge that refuses the words or the pictures of a document refuses them by the model's fault. Any other 4xx
but those of keys and quotas (too long, too many images, a parameter, a status that nobody documents) is
settled by asking, since an answer may repeat what the document says: once more with the document shortened
(`rewards.judges.shorten`), with fewer images where the judge named its limit, and in the end without any
document. A judge that takes the last and not the one before has refused the document: the model's fault. One
that refuses even that is not set up for these requests: infrastructure's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from rewards.judges import replies
from rewards.judges.prompts import Chat
from rewards.settings import TokensField
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JobContext
from workers.providers.http import keys
from workers.providers.http.api import Answer, Call, Refused, TooLarge, ask
from workers.providers.http.client import run_until
from workers.providers.http.refusals import image_limit

logger = logging.getLogger(__name__)
DETAIL = 500  # characters


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
    @property
    def max_tokens_field(self) -> TokensField: ...


class Answered(NamedTuple):
    """`data`: the JSON; `model`: as the server names it; `shortened`: why the whole was refused, or ""."""

    data: object
    model: str
    shortened: str


@dataclass(frozen=True)
class Shorter:
    """The same question made smaller. `document`: shortened or not, with at most so many images (None: as
    many as are configured); `without_document`: nothing of it is left.
    """

    document: Callable[[bool, int | None], Chat]
    without_document: Callable[[], Chat]


def answer(
    judge: Endpoint,
    url: str,
    chat: Chat,
    schema: Mapping[str, Any],
    schema_name: str,
    ctx: JobContext,
    name: str,
    shorter: Shorter | None = None,
) -> Answered:
    """What the model answered, parsed.

    `url`: the endpoint up to its version; `name`: the judge in messages; `shorter`: None where the question
    holds no document. Raises `InfrastructureFault`, and `ModelFault(PROMPT_REFUSED)` for what is refused.
    """
    if not url:
        raise InfrastructureFault(Cause.PROVIDER_DOWN, "no base_url is configured", provider=name)
    call = _call(judge, url, schema, schema_name, ctx, name)
    shortened = ""
    try:
        said = _post(call, chat)
    except (TooLarge, Refused) as refusal:
        said, shortened = _shortened(call, refusal, shorter), refusal.detail
    model = call.said(said.get("model")) or judge.model
    return Answered(replies.content(call, said), model, shortened)


def _call(
    judge: Endpoint, url: str, schema: Mapping[str, Any], schema_name: str, ctx: JobContext, name: str
) -> Call:
    variable = keys.key_env(judge.api_key_env, url)
    key = keys.required(variable, name) if variable else ""
    body: dict[str, Any] = {
        "model": judge.model,
        "temperature": judge.temperature,
        judge.max_tokens_field: judge.max_tokens,
        "seed": ctx.request.seed,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": schema_name, "strict": True, "schema": schema},
        },
    }
    thinking = getattr(judge, "enable_thinking", None)  # not every judge's settings have it
    if thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": thinking}
    return Call(
        provider=name,
        method="POST",
        url=f"{url}/chat/completions",
        deadline=ctx.deadline,
        body=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        key=key,
        expects="choices",
    )


def _post(call: Call, chat: Chat) -> Answer:
    whole = replace(call, body={**(call.body or {}), "messages": chat})
    return run_until(call.deadline, ask(whole))


def _shortened(call: Call, refusal: TooLarge | Refused, shorter: Shorter | None) -> Answer:
    """The answer to the shortened question. Raises as the module's docstring says."""
    if shorter is None:
        raise _configuration(call, refusal)
    logger.info("%s is asked about a shortened document: %s", call.provider, refusal.detail)
    short, most_images = False, None
    while True:
        named = image_limit(refusal.detail)
        if named and most_images is None:
            most_images = named
        elif not short:
            short = True
        else:
            break
        try:
            return _post(call, shorter.document(short, most_images))
        except (TooLarge, Refused) as again:
            refusal = again
    try:
        _post(call, shorter.without_document())
    except (TooLarge, Refused, ModelFault) as still:
        raise _configuration(call, still) from refusal
    detail = f"the judge refuses the document, however short: {refusal.detail}"
    raise ModelFault(Cause.PROMPT_REFUSED, detail[:DETAIL], provider=call.provider) from refusal


def _configuration(call: Call, refusal: TooLarge | Refused | ModelFault) -> InfrastructureFault:
    """What a judge refuses that would be refused whatever the document."""
    if isinstance(refusal, Refused):
        return refusal
    detail = f"it refuses a request without a document too; correct its settings: {refusal.detail}"
    return InfrastructureFault(Cause.BAD_ANSWER, detail[:DETAIL], provider=call.provider)
