"""Read the JSON verdict from a chat endpoint's answer. Pure functions.

Invariants:
- An answer that does not parse is VERDICT_UNREADABLE. It is never repaired.
- A content filter's finish reason, a `refusal`, and an apology in place of a verdict are the model's fault
  (`PROMPT_REFUSED`).
- A verdict that parses counts, whatever else the answer has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.errors import Cause, InfrastructureFault, JobError, ModelFault
from workers.providers.http import api, keys
from workers.providers.http.refusals import is_content_code, plain, read

SHOWN = 200  # characters of an unreadable verdict in a detail
APOLOGY = 1000  # characters of an answer that may be an apology
APOLOGIES = (
    *("imsorry", "iamsorry", "sorry", "icant", "icannot", "imunable", "iamunable", "imnotable", "iamnotable"),
    *("iwont", "iwillnot", "imafraid", "asanai", "unfortunatelyi", "iapologize", "iapologise"),
    *("imustdecline", "ihavetodecline", "jesuisdésolé", "désolé", "losiento", "estutmirleid", "tutmirleid"),
    *("抱歉", "很抱歉", "对不起", "我无法", "我不能", "申し訳"),
)


def text(answer: Mapping[str, Any]) -> str:
    """The text of an answer that `content` has read."""
    return _text(answer["choices"][0]["message"])[0]


def content(call: api.Call, answer: Mapping[str, Any]) -> object:
    """The answer's JSON, with the API key blanked out of its top-level strings."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        if isinstance(choice, dict) and _filtered(choice, answer):
            raise _refused(call, "a content filter stopped its answer")
        if isinstance(choice, dict) and choice.get("error"):
            raise api.refused(call, 200, choice)
        raise InfrastructureFault(
            Cause.BAD_ANSWER, "the answer has no choices[0].message", provider=call.provider
        )
    words, declined = _text(message)
    try:
        verdict = api.parsed(words)
    except ValueError as error:
        raise _unreadable(call, answer, choice, words, declined) from error
    if not isinstance(verdict, dict):
        return verdict
    return {k: keys.redacted(v, call.key) if isinstance(v, str) else v for k, v in verdict.items()}


def _text(message: Mapping[str, Any]) -> tuple[str, str]:
    """A message's text and its refusal, "" for none. Some servers answer in parts."""
    body, declined = message.get("content"), message.get("refusal")
    parts = body if isinstance(body, list) else [{"text": body}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    refusals = [declined, *(part.get("refusal") for part in parts if isinstance(part, dict))]
    return (
        "".join(text for text in texts if isinstance(text, str)),
        next((words for words in refusals if isinstance(words, str) and words.strip()), ""),
    )


def _unreadable(
    call: api.Call, answer: Mapping[str, Any], choice: Mapping[str, Any], text: str, declined: str
) -> JobError:
    if declined or (len(text) <= APOLOGY and plain(text).startswith(APOLOGIES)):
        return _refused(call, call.redacted(declined or text))
    if _filtered(choice, answer):
        return _refused(call, "a content filter stopped its answer")
    if choice.get("error"):
        return api.refused(call, 200, choice)
    ended = choice.get("finish_reason")
    shown, why = call.redacted(text)[:SHOWN], call.redacted(ended) or "none"
    hint = "; raise its max_tokens" if ended == "length" else ""
    detail = f"not a JSON verdict (finish_reason {why}{hint}): {shown!r}"
    return InfrastructureFault(Cause.VERDICT_UNREADABLE, detail, provider=call.provider)


def _filtered(choice: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    reasons = (choice.get("finish_reason"), choice.get("stop_reason"), answer.get("stop_reason"))
    return any(is_content_code(reason) for reason in reasons) or read(answer).flagged


def _refused(call: api.Call, words: str) -> ModelFault:
    return ModelFault(Cause.PROMPT_REFUSED, f"the judge refuses: {words}", provider=call.provider)
