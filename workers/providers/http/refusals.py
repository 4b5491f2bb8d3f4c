"""What the error answer of a service means for a request that holds words or pictures of the model. Pure.

Services refuse in many shapes: OpenAI's `error.code`, Azure's `error.innererror`, DashScope's top-level
`code`, FastAPI's `detail`, a string, an error beside HTTP 200. `meaning` reads the codes and the messages
wherever they stand, never what an answer repeats of the request. Codes count before messages, and of
messages those that speak of keys and quotas before those that speak of content: a fault of ours must not
count against a document. No regular expression: the answer is untrusted text.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from workers.providers.http.refusal_words import (
    CONTENT_CODES,
    CONTENT_SAID,
    CONTENT_WORDS,
    CONTEXT_SAID,
    KEY_CODES,
    KEY_SAID,
    LARGE_CODES,
    LARGE_SAID,
    OURS_SAID,
    OWN_FIELDS,
    QUOTA_CODES,
    QUOTA_SAID,
    REQUEST_CODES,
    SHAPE_SAID,
)


class Meaning(StrEnum):
    """Why a service refused. The first two are the model's fault; the others are not known to be."""

    CONTENT = "content"  # the words or pictures are not wanted
    TOO_LARGE = "too_large"  # too many words, pictures or bytes
    QUOTA = "quota"  # also an account without money
    KEY = "key"
    REQUEST = "request"  # a parameter, a model or an address of our configuration
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
# What an answer repeats of the request, or made from it.
_ECHOES = frozenset(
    {"input", "inputs", "prompt", "messages", "request", "body", "ctx", "text", "content", "images", "url"}
    | {"b64json", "revisedprompt", "query", "searchparameters", "arguments"}
)
ECHO = 20  # letters of the request that an answer does not hold by chance
_LIMITS = ("most", "max", "limit", "exceed", "many", ">")
_UNITS = ("kb", "mb", "kib", "mib", "bytes", "pixel", "px")
_SIGNS = ".,:;()[]{}'\"`"
_DEEP, _MANY, _LONG = 8, 300, 4000  # levels, values, characters of a value that are read


@dataclass
class Said:
    """Codes, messages and parameters of an answer, in plain form; `words`: its first message, or code, as it
    is; `number`: an HTTP status in it, 0 for none; `flagged`: a filter says that it acted.
    """

    codes: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    params: set[str] = field(default_factory=set)
    words: str = ""
    number: int = 0
    flagged: bool = False


def plain(text: str) -> str:
    """`text` as it is compared: lower case, letters and digits only."""
    return "".join(c for c in text[:_LONG].lower() if c.isalnum())


def meaning(status: int, answer: object, body: str = "", wrote: str = "") -> Meaning:
    """What an answer with an error means. `status`: of HTTP; `answer`: its JSON, None where it is none;
    `body`: its text in that case; `wrote`: the model's words in the request.
    """
    said = read(answer)
    status = said.number if 200 <= status < 300 and said.number >= 400 else status
    if not isinstance(answer, dict | list) and "<" not in body[:20]:  # a page of HTML is a proxy's
        said.messages.append(plain(body))
    if echo := plain(wrote):
        said.messages = [_without(echo, message) for message in said.messages]
    if status == 429 and _any(("requesttoolarge",), said.messages):
        return Meaning.TOO_LARGE  # more tokens at once than the plan allows a minute: it never passes
    if status in (401, 402, 429):
        return Meaning.KEY if status == 401 else Meaning.QUOTA
    if (
        said.flagged
        or _any(CONTENT_CODES, said.codes)
        or CONTENT_WORDS.intersection(said.codes)
        or status == 451
    ):
        return Meaning.CONTENT
    if status >= 500 or status == 408:
        return Meaning.FAILED
    if _any(LARGE_CODES, said.codes) or status in (413, 414, 431):
        return Meaning.TOO_LARGE
    if _any(QUOTA_CODES, said.codes):
        return Meaning.QUOTA
    if _any(KEY_CODES, said.codes):
        # xAI refuses content under a code that speaks of permission.
        return Meaning.CONTENT if _of_content(said) else Meaning.KEY
    if _any(REQUEST_CODES, said.codes) or status in (404, 405, 410) or 300 <= status < 400:
        return Meaning.REQUEST
    return _spoken(status, said)


def _without(echo: str, message: str) -> str:
    """`message` without the words of the request, so that these do not decide whose fault it is."""
    message = message.replace(echo, "") if len(echo) >= ECHO else message
    beginning = message.find(echo[:ECHO]) if len(echo) > ECHO else -1
    return message if beginning < 0 else message[:beginning]


def _spoken(status: int, said: Said) -> Meaning:
    """The meaning by the messages alone, where no code decides."""
    if _any(CONTEXT_SAID, said.messages):
        return Meaning.TOO_LARGE
    if _any(KEY_SAID, said.messages):
        return Meaning.KEY
    if _any(QUOTA_SAID, said.messages):
        return Meaning.QUOTA
    ours = _any(OURS_SAID, said.messages) or bool(OWN_FIELDS & said.params)
    if not ours and _any(CONTENT_SAID, said.messages):
        return Meaning.CONTENT
    if status == 403:
        return Meaning.KEY
    if ours:
        return Meaning.REQUEST
    if _any(LARGE_SAID, said.messages):
        return Meaning.TOO_LARGE
    shape = "image" in said.params and _any(SHAPE_SAID, said.messages)
    return Meaning.CONTENT if shape or "prompt" in said.params else Meaning.UNKNOWN


def _of_content(said: Said) -> bool:
    """Whether the messages speak of content, and of nothing that is ours."""
    ours = any(_any(parts, said.messages) for parts in (KEY_SAID, QUOTA_SAID, OURS_SAID))
    return not ours and _any(CONTENT_SAID, said.messages)


def speaks_of_content(text: str) -> bool:
    """Whether a message alone says that words or pictures were not wanted, or were too many."""
    words = [plain(text)]
    if any(_any(parts, words) for parts in (KEY_SAID, QUOTA_SAID, OURS_SAID)):
        return False
    return any(_any(parts, words) for parts in (CONTENT_SAID, CONTEXT_SAID, LARGE_SAID))


def is_content_code(code: object) -> bool:
    """Whether a finish reason, a block reason or a code says that a content filter acted."""
    if not isinstance(code, str):
        return False
    word = plain(code)
    return word in CONTENT_WORDS or _any(CONTENT_CODES, [word])


def image_limit(text: str) -> int | None:
    """The N of a message such as vLLM's "At most N image(s) may be provided in one prompt", else None.
    0: the model takes no images.

    Of several numbers near the words it is the least but 0: the others count the images that were sent.
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


def read(answer: object) -> Said:
    """The codes, messages and parameters of an answer, wherever in it they stand."""
    said, seen, code = Said(), 0, ""
    for name, value in _walk(answer, "", 0):
        seen += 1
        if seen > _MANY:
            break
        if (name in _FLAGS and value is True) or (name in _REASONS and isinstance(value, str) and value):
            said.flagged = True
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            if name in ("code", "status", "statuscode") and 400 <= value < 600 and not said.number:
                said.number = value
        elif isinstance(value, str):
            _note(said, name, value)
            code = code or (value if name == "code" else "")
    said.words = said.words or code
    return said


def _note(said: Said, name: str, value: str) -> None:
    if name in ("param", "loc"):
        said.params.add(value[:100].split("[")[0].lower())
    if name in _CODES:
        said.codes.append(plain(value[:200]))
        if name in ("code", "status") and value.isdecimal() and len(value) == 3:
            said.number = said.number or int(value)
    if name in _MESSAGES:
        said.messages.append(plain(value))
        said.words = said.words or value
        if value.lstrip()[:1] == "{":  # an error of another service, passed on as text
            inner = _inner(value)
            said.codes += inner.codes
            said.params |= inner.params
            said.flagged |= inner.flagged


def _inner(text: str) -> Said:
    try:
        answer = json.loads(text[: 4 * _LONG])
    except (ValueError, RecursionError):
        return Said()
    # One level of nesting is what gateways do; its own strings are not opened again.
    said = Said()
    for name, value in _walk(answer, "", 0):
        if isinstance(value, str) and name in _CODES:
            said.codes.append(plain(value[:200]))
        said.flagged |= name in _FLAGS and value is True
    return said


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every plain value with the name that it stands under, an outer one before an inner one."""
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
