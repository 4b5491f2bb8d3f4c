"""Send one request to a judge behind an OpenAI-compatible chat endpoint; a JSON schema limits its answer.

Invariants: never past the request's deadline; network failures are typed and retried by
`workers.providers.http.api`; a key is only in its header.

A refusal of a document's words or pictures is the model's fault. For any other 4xx except those of keys and
quotas (too long, too many images, a parameter, an unknown status), the error text does not decide, since it
may quote the document. Up to three more requests decide:

1. with fewer images, where the judge named its limit;
2. with the document shortened (`rewards.judges.shorten`);
3. without a document.

If only the last is accepted, the document is refused: the model's fault. If that is refused too, the judge is
not configured for these requests: an infrastructure failure.

An error that names log-probabilities is answered with the same request without them. If that is accepted,
this process requests none from this model again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from rewards.judges.prompts import Chat
from rewards.judges.served import replies
from rewards.judges.served.logprobs import REQUESTED
from rewards.settings import TokensField
from workers import event_loop
from workers.errors import Cause, InfrastructureFault, JobError, ModelFault
from workers.jobs import JobContext
from workers.providers.http import keys
from workers.providers.http.api import Answer, Call, Refused, TooLarge, send
from workers.providers.http.refusals import image_limit

logger = logging.getLogger(__name__)
PATH = "/chat/completions"
DETAIL = 500  # characters
_without_logprobs: set[tuple[str, str]] = set()  # endpoints and models that refuse log-probabilities


class Endpoint(Protocol):
    """The settings of a judge's endpoint."""

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
    """`data`: the JSON; `model`: the name that the server reports; `shortened`: why the whole was refused, or
    ""; `reply`: the whole answer; `chat`: the prompt that it answers.
    """

    data: object
    model: str
    shortened: str
    reply: Answer
    chat: Chat


@dataclass(frozen=True)
class Shorter:
    """Smaller versions of a request. `document(short, most_images)`: with the document, shortened or not, and
    at most so many images (None: as configured); `without_document()`: without it.
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
    *,
    with_logprobs: bool = False,
) -> Answered:
    """The model's answer, parsed.

    `url`: the endpoint up to its version; `name`: the judge's in messages; `shorter`: None for a request
    without a document; `with_logprobs`: request log-probabilities where the endpoint has them. Raises
    `InfrastructureFault`, and `ModelFault(PROMPT_REFUSED)` for a refusal.
    """
    if not url:
        raise InfrastructureFault(Cause.PROVIDER_DOWN, "no base_url is configured", provider=name)
    call = _call(judge, url, schema, schema_name, ctx, name)
    if with_logprobs and (url, judge.model) not in _without_logprobs:
        call = replace(call, body={**(call.body or {}), **REQUESTED})
    shortened = ""
    try:
        reply = _post(call, chat, ctx)
    except (TooLarge, Refused) as refusal:
        reply, chat, shortened = *_shortened(call, refusal, shorter, ctx), refusal.detail
    model = call.redacted(reply.get("model")) or judge.model
    return Answered(replies.content(call, reply), model, shortened, reply, chat)


def _call(
    judge: Endpoint, url: str, schema: Mapping[str, Any], schema_name: str, ctx: JobContext, name: str
) -> Call:
    variable = keys.key_env(judge.api_key_env, url)
    key = keys.required_key(variable, name) if variable else ""
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
    thinking = getattr(judge, "enable_thinking", None)  # RubricSettings has no such field
    if thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": thinking}
    return Call(
        provider=name,
        method="POST",
        url=f"{url}{PATH}",
        deadline=ctx.deadline,
        body=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        key=key,
        expects="choices",
    )


def _post(call: Call, chat: Chat, ctx: JobContext) -> Answer:
    body = {**(call.body or {}), "messages": chat}
    try:
        return event_loop.run(send(replace(call, body=body)), call.deadline, ctx.cancelled)
    except JobError as error:
        if "logprobs" not in body or "logprob" not in error.detail.lower():
            raise
        detail = error.detail
    fewer = {name: value for name, value in body.items() if name not in REQUESTED}
    reply = event_loop.run(send(replace(call, body=fewer)), call.deadline, ctx.cancelled)
    logger.warning("%s gives no log-probabilities, so its scores are integers: %s", call.provider, detail)
    _without_logprobs.add((call.url.removesuffix(PATH), body["model"]))
    return reply


def _shortened(
    call: Call, refusal: TooLarge | Refused, shorter: Shorter | None, ctx: JobContext
) -> tuple[Answer, Chat]:
    """The answer to a smaller request, and that request. Raises as the module's docstring says."""
    if shorter is None:
        raise _configuration(call, refusal)
    logger.info("%s refused a request; sending a shortened document: %s", call.provider, refusal.detail)
    short, most_images = False, None
    while True:
        named = image_limit(refusal.detail)
        if named and most_images is None:
            most_images = named
        elif not short:
            short = True
        else:
            break
        chat = shorter.document(short, most_images)
        try:
            return _post(call, chat, ctx), chat
        except (TooLarge, Refused) as again:
            refusal = again
    try:
        _post(call, shorter.without_document(), ctx)
    except (TooLarge, Refused, ModelFault) as still:
        raise _configuration(call, still) from refusal
    detail = f"the judge refuses the document, however short: {refusal.detail}"
    raise ModelFault(Cause.PROMPT_REFUSED, detail[:DETAIL], provider=call.provider) from refusal


def _configuration(call: Call, refusal: TooLarge | Refused | ModelFault) -> InfrastructureFault:
    """The fault for a judge that refuses every request."""
    if isinstance(refusal, Refused):
        return refusal
    detail = f"it refuses a request without a document too; correct its settings: {refusal.detail}"
    return InfrastructureFault(Cause.BAD_ANSWER, detail[:DETAIL], provider=call.provider)
