"""Shorten a document for a judge. Pure functions.

Text is kept from the beginning as far as it fits; a part then states how many characters are left out. A tag
that does not fit is left out. An image keeps its place, its description cut to `DESCRIPTION` characters. The
task is cut by the same rule.

Two limits:
- `for_message`, applied to every payload: the size of a message of the queue.
- `for_judge`, for a judge that refused the whole document: at most `SHORT_BYTES` of it, or half of it if that
  is less, `SHORT_TASK` of the task, none of the user's images, and images of `SHORT_PIXELS` pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from rewards.judges.parts import ShownCut, ShownImage, ShownInvalid, ShownTag, ShownText

Piece: TypeAlias = ShownText | ShownTag | ShownInvalid | ShownImage | ShownCut

# Bytes of JSON in ASCII. A message has 1 MiB, and base64 leaves three quarters of it.
MESSAGE_BYTES = 500_000
MESSAGE_TASK = 200_000
# Bytes of UTF-8: about 4,000 tokens, never more than 16,000.
SHORT_BYTES = 16_000
SHORT_TASK = 4_000
SHORT_PIXELS = 28 * 28 * 100
DESCRIPTION = 200  # characters

PART = 100  # bytes of a part without its text: names and brackets
Size = Callable[[str], int]


class Payload(Protocol):
    """A payload with a task and the document's parts."""

    @property
    def question(self) -> str: ...
    @property
    def parts(self) -> Sequence[Piece]: ...
    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self: ...


M = TypeVar("M", bound=Payload)


def utf8(text: str) -> int:
    """Bytes of UTF-8; a lone surrogate counts 3."""
    return len(text.encode(errors="surrogatepass"))


def escaped(text: str) -> int:
    """Bytes as ASCII JSON."""
    return len(json.dumps(text)) - 2


def for_message(payload: M) -> M:
    """`payload`, short enough for a message of the queue."""
    return _shorter(payload, MESSAGE_TASK, MESSAGE_BYTES, escaped)


def for_judge(payload: M) -> M:
    """`payload` for a judge that refused the whole of it; without the user's images."""
    room = min(SHORT_BYTES, sum(PART + _length(part, utf8) for part in payload.parts) // 2)
    return _without_inputs(_shorter(payload, SHORT_TASK, room, utf8))


def without_document(payload: M) -> M:
    """The short payload without the document: shows whether the judge accepts requests at all."""
    short = _without_inputs(_shorter(payload, SHORT_TASK, SHORT_BYTES, utf8))
    return short.model_copy(update={"parts": ()})


def cut(text: str, room: int, size: Size = utf8) -> str:
    """The longest beginning of `text` whose size is at most `room`; sizes grow with the text."""
    if size(text) <= room:
        return text
    low, high = 0, min(len(text), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) <= room else (low, middle - 1)
    return text[:low]


def _shorter(payload: M, task: int, room: int, size: Size) -> M:
    question, parts = payload.question, payload.parts
    shown_question = cut(question, task, size)
    if len(shown_question) < len(question):
        left_out = len(question) - len(shown_question)
        shown_question += f"\n[{left_out} more characters, too many for this judge, are left out here.]\n"
    kept = cut_parts(parts, room, size)
    if shown_question == question and kept == tuple(parts):
        return payload
    return payload.model_copy(update={"question": shown_question, "parts": kept})


def _without_inputs(payload: M) -> M:
    """Without the user's images. The text judge's `inputs` is only their number, and stays."""
    given = getattr(payload, "inputs", ())
    return payload.model_copy(update={"inputs": ()}) if isinstance(given, tuple) else payload


def cut_parts(parts: Sequence[Piece], room: int, size: Size) -> tuple[Piece, ...]:
    """The parts of a document within `room`, in order."""
    kept: list[Piece] = []
    missing, closed, broken = 0, False, False
    for part in parts:
        if part.type == "cut":
            missing += part.characters
            continue
        needed = PART + _length(part, size)
        if not closed and needed <= room:
            kept.append(part)
            room -= needed
            broken |= part.type == "invalid"
            continue
        if part.type == "text" and not closed:
            beginning = cut(part.text, room - PART, size)
            missing += len(part.text) - len(beginning)
            kept.append(part.model_copy(update={"text": beginning}))
        elif part.type == "image":
            kept.append(_small(part))
        elif part.type == "invalid" and not broken:
            kept.append(part.model_copy(update={"raw": part.raw[:DESCRIPTION]}))
            broken = True
        else:
            missing += _length(part, len)
        closed = True
    return (*kept, ShownCut(characters=missing)) if missing else tuple(kept)


def _small(image: ShownImage) -> ShownImage:
    """The image with its texts cut to `DESCRIPTION` characters."""
    tag = image.tag
    params = {n: value[:DESCRIPTION] if isinstance(value, str) else value for n, value in tag.params.items()}
    short = tag.model_copy(update={"description": tag.description[:DESCRIPTION], "params": params})
    return image.model_copy(update={"tag": short, "caption": image.caption[:DESCRIPTION]})


def _length(part: Piece, size: Size) -> int:
    """The size of all texts of a part."""
    if part.type == "cut":
        return 0
    if part.type == "text":
        return size(part.text)
    if part.type == "invalid":
        return size(part.raw) + size(part.reason)
    if part.type == "tag":
        return _tag_length(part, size)
    return _tag_length(part.tag, size) + size(part.caption)


def _tag_length(tag: ShownTag, size: Size) -> int:
    return size(tag.description) + sum(size(name) + size(str(value)) for name, value in tag.params.items())
