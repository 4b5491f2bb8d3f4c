"""Split the model's text into the parts of a document, all at once or as a stream.

The marks are `<imgen>`, `</imgen>`, `<think>` and `</think>`. A text can also mention a mark. Such a mark is
ordinary text, as is one for which no rule holds:

- `<imgen>` opens a tag if a dictionary follows it.
- `<imgen>` without a dictionary opens an invalid tag if `</imgen>` is the next mark and the text between them
  looks like the content of a tag (`TagReader._end_mention`).
- `</imgen>` closes the open tag. If another tag opens first, the open tag was never closed, and is invalid.
- `<think>` opens a thought at the beginning of the document, also if `</think>` never follows.
- `<think>` at the beginning of a line opens a thought if `</think>` follows anywhere.
- `<think>` within a line opens a thought if `</think>` follows before the next tag.
- `<think>` after a quote does not open a thought. Within a tag it is content of the tag.

Invariants:
- No input raises.
- A thought is not part of the document.
- A tag becomes one part, valid or invalid, with its index.
- The text parts and the raw tags, joined, are the text without its thoughts.
- The parts do not depend on the pieces in which the text arrives. Time is linear in its length.
- A tag is returned as soon as it is closed, unless it could still turn out to be part of a thought.
- `<image>` is only text.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from policy.document import ImagePart, InvalidPart, Part, TextPart
from policy.grammar.tag_body import Invalid, dictionary_end, parse_tag
from workers.text.patterns import MARK, OPENING, QUOTES, SURROGATE

__all__ = ["CLOSE", "OPEN", "Invalid", "TagReader", "parse_tag", "read"]

OPEN, CLOSE = "<imgen>", "</imgen>"
_ALL = (OPEN, CLOSE, "<think>", "</think>")
_BEGINNINGS = frozenset(mark[:size] for mark in _ALL for size in range(1, len(mark)))


class Mark(Enum):
    """The groups of `workers.text.patterns.MARK`, and the text between marks."""

    TEXT = auto()
    DICTIONARY = auto()  # `<imgen>` and the start of a dictionary, which the raw text includes
    MENTION = auto()  # `<imgen>` without the start of a dictionary
    CLOSE = auto()
    THINK = auto()
    UNTHINK = auto()


class Token(NamedTuple):
    mark: Mark
    raw: str


class _State(Enum):
    TEXT = auto()
    MENTION = auto()  # after an `<imgen>` without a dictionary
    TAG = auto()
    THOUGHT = auto()


class _Thought(Enum):
    """Where a thought began. `</think>` ends each kind."""

    FIRST = auto()  # at the beginning of the document
    LINE = auto()  # at the beginning of a line; is text if the text ends first
    INLINE = auto()  # within a line; is text if the text ends or a tag opens first


class TagReader:
    """Reads a stream. `feed` returns the parts that became complete."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.tags = 0
        self._held = ""  # text that may be the beginning of a mark
        self._state = _State.TEXT
        self._text: list[str] = []
        self._raw: list[str] = []  # of the open tag or mention
        self._thought = _Thought.FIRST
        self._thoughts: list[Token] = []  # of a thought that may become text
        self._blank = self._line_blank = True  # only white space so far in the document, in the line
        self._last = ""  # the last character of the text

    def feed(self, text: str) -> list[Part]:
        parts: list[Part] = []
        text = self._held + SURROGATE.sub("�", text)
        end = _decided(text)
        self._held = text[end:]
        for token in _tokens(text[:end]):
            self._step(token, parts)
        return parts

    def close(self) -> list[Part]:
        """The parts that are open at the end: the last text, or a tag that was never closed."""
        parts: list[Part] = []
        for token in _tokens(self._held):
            self._step(token, parts)
        if self._state is _State.THOUGHT and self._thought is not _Thought.FIRST:
            self._thought_to_text(parts)
        if self._state is _State.TAG:
            self._unclosed(parts, final=True)
        elif self._state is _State.MENTION:
            self._add_text("".join(self._raw))
        self._state = _State.TEXT
        self._flush(parts)
        return parts

    def _step(self, token: Token, parts: list[Part], *, thoughts: bool = True) -> None:
        mark, raw = token
        if self._state is _State.THOUGHT:
            if mark is Mark.DICTIONARY and self._thought is _Thought.INLINE:
                self._thought_to_text(parts)
            else:
                self._think(token)
                return
        if self._state is _State.TAG:
            if mark is Mark.DICTIONARY:
                self._unclosed(parts, final=False)
            else:
                self._raw.append(raw)
                if mark is Mark.CLOSE:
                    self._tag(parts)
                return
        if self._state is _State.MENTION:
            if mark is Mark.TEXT or mark is Mark.CLOSE:
                self._raw.append(raw)
                if mark is Mark.CLOSE:
                    self._end_mention(parts)
                return
            self._add_text("".join(self._raw))
            self._state = _State.TEXT
        if mark is Mark.DICTIONARY or mark is Mark.MENTION:
            self._state = _State.TAG if mark is Mark.DICTIONARY else _State.MENTION
            self._raw = [raw]
            if mark is Mark.DICTIONARY and self._last != "`":  # else it may become text
                self._flush(parts)
        elif mark is Mark.THINK and thoughts and not self._quoted():
            self._state, self._thoughts = _State.THOUGHT, [token]
            line = _Thought.LINE if self._line_blank else _Thought.INLINE
            self._thought = _Thought.FIRST if self._blank else line
        else:
            self._add_text(raw)

    def _think(self, token: Token) -> None:
        if token.mark is Mark.UNTHINK:
            self._state, self._thoughts = _State.TEXT, []
        elif self._thought is not _Thought.FIRST:
            self._thoughts.append(token)

    def _thought_to_text(self, parts: list[Part]) -> None:
        """Read the tokens of an unclosed thought as text. No `<think>` in it opens another one."""
        tokens, self._thoughts, self._state = self._thoughts, [], _State.TEXT
        for token in tokens:
            self._step(token, parts, thoughts=False)

    def _add_text(self, text: str) -> None:
        if not text:
            return
        self._text.append(text)
        self._last = text[-1]
        self._blank = self._blank and text.isspace()
        line = text.rpartition("\n")
        self._line_blank = (self._line_blank or bool(line[1])) and not line[2].strip()

    def _quoted(self) -> bool:
        return self._last in tuple(QUOTES)

    def _end_mention(self, parts: list[Part]) -> None:
        """Decide whether a mention without a dictionary is an invalid tag or text."""
        inside = "".join(self._raw)[len(OPEN) : -len(CLOSE)]
        first = inside[:1]
        words = any(map(str.isalnum, inside)) and (
            first.isalnum() or first.isspace() or first in "{[(<`'\"“‘$#&"
        )
        mention = self._last == "`" or (self._quoted() and first in QUOTES)
        mention |= first.isspace() and not self._line_blank  # "between <imgen> and </imgen>"
        if words and not mention:
            self._tag(parts)
        else:
            self._add_text("".join(self._raw))
            self._state = _State.TEXT

    def _tag(self, parts: list[Part]) -> None:
        raw = "".join(self._raw)
        tag = parse_tag(raw[len(OPEN) : -len(CLOSE)], index=self.tags, inputs=self.inputs)
        # A code span that ends inside the tag, or that shows the form of a tag.
        if isinstance(tag, Invalid) and self._last == "`" and any(mark in raw for mark in ("`", "...", "…")):
            self._state = _State.TEXT
            self._add_text(raw)
        elif isinstance(tag, Invalid):
            self._add(InvalidPart(index=self.tags, raw=raw, reason=tag.reason), parts)
        else:
            self._add(ImagePart(index=self.tags, tag=tag, raw=raw), parts)

    def _unclosed(self, parts: list[Part], *, final: bool) -> None:
        """End a tag without `</imgen>` after its dictionary; what follows is text.

        `final`: the text ends here. An incomplete dictionary ends with the text, otherwise with its line.
        """
        raw = "".join(self._raw)
        if self._last == "`" and "`" in raw:  # a code span with the beginning of a tag
            self._state = _State.TEXT
            self._add_text(raw)
            return
        line = raw.find("\n")
        rest = len(raw) if final or line < 0 else line
        end = dictionary_end(raw, len(OPEN)) or rest
        self._add(InvalidPart(index=self.tags, raw=raw[:end], reason="the tag is never closed"), parts)
        self._add_text(raw[end:])

    def _add(self, tag: ImagePart | InvalidPart, parts: list[Part]) -> None:
        self._flush(parts)
        parts.append(tag)
        self.tags += 1
        self._state, self._raw = _State.TEXT, []
        self._blank, self._line_blank, self._last = False, True, ""

    def _flush(self, parts: list[Part]) -> None:
        text, self._text = "".join(self._text), []
        if text:
            parts.append(TextPart(text=text))


def _decided(text: str) -> int:
    """Where the text may end with an incomplete mark; its length if it does not."""
    at = text.rfind("<")
    undecided = at >= 0 and (text[at : at + len(CLOSE) + 1] in _BEGINNINGS or OPENING.fullmatch(text, at))
    return at if undecided else len(text)


def _tokens(text: str) -> Iterator[Token]:
    """The marks and the text between them. Their raw texts, joined, are the text."""
    at = 0
    for found in MARK.finditer(text):
        if found.start() > at:
            yield Token(Mark.TEXT, text[at : found.start()])
        yield Token(Mark[str(found.lastgroup)], found[0])
        at = found.end()
    if at < len(text):
        yield Token(Mark.TEXT, text[at:])


def read(text: str, *, inputs: int) -> tuple[Part, ...]:
    """The parts of a complete text, in order. `inputs`: images in the prompt."""
    reader = TagReader(inputs)
    return (*reader.feed(text), *reader.close())
