"""From a model's text to the parts of a document, all at once or as it streams.

Invariants: no input raises; `<think>…</think>` is gone before tags are read, and a thought that never closes
takes the rest of the text with it; the first `</imgen>` closes a tag; every `<imgen>` that opens becomes
exactly one part, valid or invalid, with its index; the text parts and the raw tags, joined, are the whole
text without its thoughts; feeding in any pieces gives the parts that reading at once gives. `<image>` is only
text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from policy.document import SOURCES, ImagePart, InvalidPart, Part, Source, Tag, TextPart
from policy.literal import Unreadable, read_dict
from workers.messages import Message, whole

OPEN, CLOSE = "<imgen>", "</imgen>"
THINK, UNTHINK = "<think>", "</think>"

_SURROGATES = re.compile("[\ud800-\udfff]")


def _written(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Prose = Annotated[str, Field(max_length=8000), AfterValidator(_written)]
Query = Annotated[str, Field(max_length=2000), AfterValidator(_written)]
Code = Annotated[str, Field(max_length=100_000), AfterValidator(_written)]


class _Strict(Message):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Body(_Strict):
    source: Source
    description: Prose
    params: dict


class _Diffusion(_Strict):
    prompt: Prose


class _Search(_Strict):
    query: Query


class _Code(_Strict):
    code: Code


class _Edit(_Strict):
    img_index: Annotated[int, Field(ge=0)]
    prompt: Prose


PARAMS: dict[Source, type[_Strict]] = {
    "search": _Search,
    "diffusion": _Diffusion,
    "code": _Code,
    "edit": _Edit,
}


@dataclass(frozen=True)
class Invalid:
    """Why a tag is none, in one line."""

    reason: str


def parse_tag(body: str, *, index: int, inputs: int) -> Tag | Invalid:
    """What stands between `<imgen>` and `</imgen>`.

    `index` is the tag's place among all tags of the document, from 0; `inputs` the number of images in the
    prompt. An edit's `img_index` counts the inputs first, then every tag, and must point before this one.
    """
    try:
        value = _clean(read_dict(body))
    except Unreadable as error:
        return Invalid(str(error))
    try:
        outer = _Body.model_validate(value)
    except ValidationError as error:
        return Invalid(_reason(error))
    try:
        params = PARAMS[outer.source].model_validate(outer.params)
    except ValidationError as error:
        return Invalid(_reason(error, f"{outer.source} params."))
    if isinstance(params, _Edit) and params.img_index >= inputs + index:
        return Invalid(
            f"params.img_index: {params.img_index} does not lie before this tag ({inputs + index})"
        )
    return Tag(source=outer.source, description=outer.description, params=params.model_dump())


def _clean(value: object) -> object:
    """Pair or replace the lone surrogates that escapes can spell, at any depth a tag has use for."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {_clean(key) if isinstance(key, str) else key: _clean(item) for key, item in value.items()}
    return value


def _reason(error: ValidationError, prefix: str = "") -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:100]
    cure = {"missing": "is missing", "extra_forbidden": "is not one of its keys"}.get(
        first["type"], first["msg"].removeprefix("Value error, ")
    )
    if where == "source" and first["type"] == "literal_error":
        cure = f"must be one of {', '.join(SOURCES)}"
    return f"{prefix}{where}: {cure}"


class _Thoughts:
    """Takes `<think>…</think>` out of a stream."""

    def __init__(self) -> None:
        self._buffer = ""
        self._thinking = False

    def feed(self, text: str) -> str:
        self._buffer += text
        out: list[str] = []
        while True:
            mark = UNTHINK if self._thinking else THINK
            before, found, after = self._buffer.partition(mark)
            if found:
                self._buffer = after
            else:
                keep = _half(before, mark)
                before, self._buffer = before[: len(before) - keep], before[len(before) - keep :]
            if not self._thinking:
                out.append(before)
            if not found:
                return "".join(out)
            self._thinking = not self._thinking

    def close(self) -> str:
        rest = "" if self._thinking else self._buffer
        self._buffer = ""
        return rest


class TagReader:
    """Reads a stream. `feed` returns the parts that just became complete; a tag is complete when it
    closes."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.tags = 0
        self._thoughts = _Thoughts()
        self._buffer = ""
        self._text: list[str] = []
        self._open = False
        self._seen = 0

    def feed(self, text: str) -> list[Part]:
        return self._take(self._thoughts.feed(_SURROGATES.sub("�", text)))

    def close(self) -> list[Part]:
        """The parts still open at the end of the text: its last words, or a tag that never closed."""
        parts = self._take(self._thoughts.close())
        if self._open:
            parts.append(self._invalid(OPEN + self._buffer, "the tag is never closed"))
        else:
            self._text.append(self._buffer)
            parts += self._flush()
        self._buffer, self._open, self._seen = "", False, 0
        return parts

    def _take(self, text: str) -> list[Part]:
        self._buffer += text
        parts: list[Part] = []
        while True:
            mark = CLOSE if self._open else OPEN
            at = self._buffer.find(mark, self._seen)
            if at < 0:
                keep = _half(self._buffer, mark)
                if self._open:
                    self._seen = len(self._buffer) - keep
                else:
                    self._text.append(self._buffer[: len(self._buffer) - keep])
                    self._buffer = self._buffer[len(self._buffer) - keep :]
                return parts
            body, self._buffer, self._seen = self._buffer[:at], self._buffer[at + len(mark) :], 0
            if self._open:
                parts.append(self._tag(body))
            else:
                self._text.append(body)
                parts += self._flush()
            self._open = not self._open

    def _flush(self) -> list[Part]:
        text, self._text = "".join(self._text), []
        return [TextPart(text=text)] if text else []

    def _tag(self, body: str) -> Part:
        raw = OPEN + body + CLOSE
        tag = parse_tag(body, index=self.tags, inputs=self.inputs)
        if isinstance(tag, Invalid):
            return self._invalid(raw, tag.reason)
        self.tags += 1
        return ImagePart(index=self.tags - 1, tag=tag, raw=raw)

    def _invalid(self, raw: str, reason: str) -> InvalidPart:
        self.tags += 1
        return InvalidPart(index=self.tags - 1, raw=raw, reason=reason)


def _half(text: str, mark: str) -> int:
    """How many characters at the end of `text` could be the beginning of `mark`."""
    return next(
        (size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0
    )


def read(text: str, *, inputs: int) -> tuple[Part, ...]:
    """A whole answer's parts, in order. `inputs` is the number of images in the prompt."""
    reader = TagReader(inputs)
    return (*reader.feed(text), *reader.close())
