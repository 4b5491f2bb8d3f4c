"""The meaning of a service's error answer for a request that holds words or images of the model. Pure.

Services refuse in many shapes: OpenAI's `error.code`, Azure's `error.innererror`, DashScope's top-level
`code`, FastAPI's `detail`, a string, an error with HTTP 200. `meaning` reads codes and messages anywhere in
the answer, but not what the answer repeats of the request. Codes count before messages. Messages about keys
and quotas count before those about content: an infrastructure failure must not count against a document. No
regular expression is used, since the answer is untrusted text.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from workers.providers.http.refusal_words import (
    CONFIGURED_FIELDS,
    CONTENT_CODES,
    CONTENT_MESSAGES,
    CONTENT_WORDS,
    CONTEXT_MESSAGES,
    INFRASTRUCTURE_MESSAGES,
    KEY_CODES,
    KEY_MESSAGES,
    LARGE_CODES,
    LARGE_MESSAGES,
    QUOTA_CODES,
    QUOTA_MESSAGES,
    REQUEST_CODES,
    SHAPE_MESSAGES,
)


class Meaning(StrEnum):
    """Why a service refused. The first two are the model's fault; the others count as infrastructure."""

    CONTENT = "content"  # words or images that a filter refuses
    TOO_LARGE = "too_large"  # too many words, images or bytes
    QUOTA = "quota"  # also an account without credit
    KEY = "key"
    REQUEST = "request"  # a parameter, a model or an address of the configuration
    UNKNOWN = "unknown"  # a 4xx for a reason that is not listed here
    FAILED = "failed"  # the service itself


_CODES = frozenset(
    {"code", "type", "status", "reason", "errorcode", "errortype", "blockreason", "finishreason"}
    | {"stopreason", "statuscode", "category", "raifilteredreason"}
)
_MESSAGES = frozenset(
    {"message", "msg", "detail", "error", "errormsg", "errormessage", "description", "title", "reason"}
    | {"statusmsg", "raw", "refusal", "reasons", "blockreasonmessage", "errors", "statusmessage"}
)
_FLAGS = frozenset({"filtered", "blocked", "flagged", "nsfw", "hasnsfwconcepts"})
# Fields that are filled only where a filter acted.
_REASONS = frozenset({"flaggedinput", "blockreason", "raifilteredreason"})
# Fields that repeat the request, or were made from it.
_ECHOES = frozenset(
    {"input", "inputs", "prompt", "messages", "request", "body", "ctx", "text", "content", "images", "url"}
    | {"b64json", "revisedprompt", "query", "searchparameters", "arguments"}
)
ECHO = 20  # this many letters of the request in an answer are no coincidence
_OTHER_MESSAGES = (KEY_MESSAGES, QUOTA_MESSAGES, INFRASTRUCTURE_MESSAGES)
_LIMITS = ("most", "max", "limit", "exceed", "many", ">")
_UNITS = ("kb", "mb", "kib", "mib", "bytes", "pixel", "px")
_SIGNS = ".,:;()[]{}'\"`"
_DEEP, _MANY, _LONG = 8, 300, 4000  # levels, values, characters of a value that are read


@dataclass
class ErrorFields:
    """Codes, messages and parameters of an answer, in plain form.

    `words`: its first message, or code, unchanged. `number`: an HTTP status in it, 0 for none. `flagged`: a
    content filter reports that it acted.
    """

    codes: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    params: set[str] = field(default_factory=set)
    words: str = ""
    number: int = 0
    flagged: bool = False


def plain(text: str) -> str:
    """`text` in the form that is compared: lower case, letters and digits only."""
    return "".join(c for c in text[:_LONG].lower() if c.isalnum())


def meaning(status: int, answer: object, body: str = "", model_text: str = "") -> Meaning:
    """The meaning of an error answer.

    `status`: of HTTP. `answer`: its JSON, None where it is none. `body`: its text in that case.
    `model_text`: the model's words in the request.
    """
    found = read(answer)
    status = found.number if 200 <= status < 300 and found.number >= 400 else status
    if not isinstance(answer, dict | list) and "<" not in body[:20]:  # a page of HTML is a proxy's
        found.messages.append(plain(body))
    if echo := plain(model_text):
        found.messages = [_without(echo, message) for message in found.messages]
    if status == 429 and _any(("requesttoolarge",), found.messages):
        return Meaning.TOO_LARGE  # more tokens than the plan allows a minute: no retry succeeds
    if status in (401, 402, 429):
        return Meaning.KEY if status == 401 else Meaning.QUOTA
    if (
        found.flagged
        or _any(CONTENT_CODES, found.codes)
        or CONTENT_WORDS.intersection(found.codes)
        or status == 451
    ):
        return Meaning.CONTENT
    if status >= 500 or status == 408:
        return Meaning.FAILED
    if _any(LARGE_CODES, found.codes) or status in (413, 414, 431):
        return Meaning.TOO_LARGE
    if _any(QUOTA_CODES, found.codes):
        return Meaning.QUOTA
    if _any(KEY_CODES, found.codes):
        # xAI refuses content with a permission code.
        return Meaning.CONTENT if _of_content(found) else Meaning.KEY
    if _any(REQUEST_CODES, found.codes) or status in (404, 405, 410) or 300 <= status < 400:
        return Meaning.REQUEST
    return _by_messages(status, found)


def _without(echo: str, message: str) -> str:
    """`message` without the words of the request, which must not decide the fault."""
    message = message.replace(echo, "") if len(echo) >= ECHO else message
    beginning = message.find(echo[:ECHO]) if len(echo) > ECHO else -1
    return message if beginning < 0 else message[:beginning]


def _by_messages(status: int, found: ErrorFields) -> Meaning:
    """The meaning by the messages, where no code decides."""
    if _any(CONTEXT_MESSAGES, found.messages):
        return Meaning.TOO_LARGE
    if _any(KEY_MESSAGES, found.messages):
        return Meaning.KEY
    if _any(QUOTA_MESSAGES, found.messages):
        return Meaning.QUOTA
    infrastructure = _any(INFRASTRUCTURE_MESSAGES, found.messages) or bool(CONFIGURED_FIELDS & found.params)
    if not infrastructure and _any(CONTENT_MESSAGES, found.messages):
        return Meaning.CONTENT
    if status == 403:
        return Meaning.KEY
    if infrastructure:
        return Meaning.REQUEST
    if _any(LARGE_MESSAGES, found.messages):
        return Meaning.TOO_LARGE
    shape = "image" in found.params and _any(SHAPE_MESSAGES, found.messages)
    return Meaning.CONTENT if shape or "prompt" in found.params else Meaning.UNKNOWN


def _of_content(found: ErrorFields) -> bool:
    """Whether the messages are about content and not about infrastructure."""
    infrastructure = any(
        _any(parts, found.messages) for parts in (KEY_MESSAGES, QUOTA_MESSAGES, INFRASTRUCTURE_MESSAGES)
    )
    return not infrastructure and _any(CONTENT_MESSAGES, found.messages)


def is_about_content(text: str) -> bool:
    """Whether a message says that words or images were refused, or were too many."""
    words = [plain(text)]
    if any(_any(parts, words) for parts in _OTHER_MESSAGES):
        return False
    return any(_any(parts, words) for parts in (CONTENT_MESSAGES, CONTEXT_MESSAGES, LARGE_MESSAGES))


def is_content_code(code: object) -> bool:
    """Whether a finish reason, a block reason or a code reports a content filter."""
    if not isinstance(code, str):
        return False
    word = plain(code)
    return word in CONTENT_WORDS or _any(CONTENT_CODES, [word])


def image_limit(text: str) -> int | None:
    """The N of a message such as vLLM's "At most N image(s) may be provided in one prompt", else None.
    0: the model takes no images.

    Of several numbers near the words it is the smallest above 0: the others count the images that were sent.
    """
    words = text[:_LONG].lower().replace("=", " ").split()
    limits = [any(part in word for part in _LIMITS) for word in words]
    images = [word.strip(_SIGNS).startswith("image") for word in words]
    if not any(limits) or not any(images):
        return None
    numbers = []
    for at, word in enumerate(words):
        number = word.strip(_SIGNS)
        if number.isdecimal() and number.isascii() and len(number) < 4:
            near = slice(max(0, at - 3), at + 4)
            sized = words[at + 1 : at + 2] and words[at + 1].startswith(_UNITS)
            if not sized and (any(images[near]) or any(limits[near])):
                numbers.append(int(number))
    return min(filter(None, numbers), default=0) if numbers else None


def _any(parts: Iterable[str], words: Iterable[str]) -> bool:
    return any(part in word for word in words for part in parts)


def read(answer: object) -> ErrorFields:
    """The codes, messages and parameters anywhere in an answer."""
    found, seen, code = ErrorFields(), 0, ""
    for name, value in _walk(answer, "", 0):
        seen += 1
        if seen > _MANY:
            break
        if (name in _FLAGS and value is True) or (name in _REASONS and isinstance(value, str) and value):
            found.flagged = True
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            if name in ("code", "status", "statuscode") and 400 <= value < 600 and not found.number:
                found.number = value
        elif isinstance(value, str):
            _note(found, name, value)
            code = code or (value if name == "code" else "")
    found.words = found.words or code
    return found


def _note(found: ErrorFields, name: str, value: str) -> None:
    if name in ("param", "loc"):
        found.params.add(value[:100].split("[")[0].lower())
    if name in _CODES:
        found.codes.append(plain(value[:200]))
        if name in ("code", "status") and value.isdecimal() and len(value) == 3:
            found.number = found.number or int(value)
    if name in _MESSAGES:
        found.messages.append(plain(value))
        found.words = found.words or value
        if value.lstrip()[:1] == "{":  # an error of another service, passed on as text
            inner = _inner(value)
            found.codes += inner.codes
            found.params |= inner.params
            found.flagged |= inner.flagged


def _inner(text: str) -> ErrorFields:
    try:
        answer = json.loads(text[: 4 * _LONG])
    except (ValueError, RecursionError):
        return ErrorFields()
    # Gateways nest one level; strings of the inner answer are not parsed again.
    found = ErrorFields()
    for name, value in _walk(answer, "", 0):
        if isinstance(value, str) and name in _CODES:
            found.codes.append(plain(value[:200]))
        found.flagged |= name in _FLAGS and value is True
    return found


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every plain value with its key, outer ones before inner ones."""
    if depth > _DEEP:
        return
    if isinstance(value, dict):
        for key, inner in itertools.islice(value.items(), _MANY):
            word = plain(str(key)[:100])
            if word not in _ECHOES:
                yield from _walk(inner, word, depth + 1)
    elif isinstance(value, list):
        for inner in value[:_MANY]:
            yield from _walk(inner, name, depth + 1)
    else:
        yield name, value
