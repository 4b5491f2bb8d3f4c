"""Find the marks `<imgen>`, `</imgen>`, `<think>` and `</think>` in text that arrives in pieces.

Invariants: the raw texts of the tokens, joined, are the text; the marks do not depend on how the text was
cut; each character is read a constant number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from workers.text.patterns import SPACE

OPEN, CLOSE = "<imgen>", "</imgen>"
THINK, UNTHINK = "<think>", "</think>"
QUOTES = "'\"‘’“”`"
"""Characters with which a model opens a string."""


class Mark(Enum):
    TEXT = auto()  # any text between marks
    DICTIONARY = auto()  # `<imgen>` and the start of a dictionary, which the raw text includes
    MENTION = auto()  # `<imgen>` without the start of a dictionary
    CLOSE = auto()
    THINK = auto()
    UNTHINK = auto()


class Token(NamedTuple):
    mark: Mark
    raw: str


_MARKS = {OPEN: Mark.MENTION, CLOSE: Mark.CLOSE, THINK: Mark.THINK, UNTHINK: Mark.UNTHINK}
_ALL = tuple(_MARKS)
_LONGEST = max(map(len, _ALL))
_BEGINNINGS = frozenset(mark[:size] for mark in _ALL for size in range(1, len(mark)))


class Marks:
    """Tokens of a stream. A mark is known with its last character, `<imgen>` with the text after it."""

    def __init__(self) -> None:
        self._held = ""  # text that may be the beginning of a mark
        self._opening: list[str] = []  # an opening mark, and the possible start of its dictionary
        self._brace = False  # whether the brace has arrived

    def feed(self, text: str) -> Iterator[Token]:
        text, self._held = self._held + text, ""
        at = 0
        while at < len(text):
            if self._opening:
                at, known = self._scan_opening(text, at)
                if known is None:
                    return
                yield self._opened(known)
                continue
            start, mark = _next(text, at)
            if start > at:
                yield Token(Mark.TEXT, text[at:start])
            if not mark:
                self._held = text[start:]
                return
            at = start + len(mark)
            if mark == OPEN:
                self._opening, self._brace = [mark], False
            else:
                yield Token(_MARKS[mark], mark)

    def close(self) -> Iterator[Token]:
        """The tokens of the text that was held back."""
        if self._opening:
            yield self._opened(Mark.MENTION)
        if self._held:
            yield Token(Mark.TEXT, self._held)
        self._held = ""

    def _scan_opening(self, text: str, at: int) -> tuple[int, Mark | None]:
        """Search on for `{` and a string after an opening mark; None while this is undecided."""
        while True:
            start, at = at, SPACE.match(text, at).end()  # type: ignore[union-attr] # matches anywhere
            self._opening.append(text[start:at])
            if at == len(text):
                return at, None
            if self._brace or text[at] != "{":
                break
            self._brace = True
            self._opening.append("{")
            at += 1
        starts = self._brace and (text[at] in QUOTES or text[at] in "}#/" or text[at].isalpha())
        return at, Mark.DICTIONARY if starts else Mark.MENTION

    def _opened(self, mark: Mark) -> Token:
        raw, self._opening = "".join(self._opening), []
        return Token(mark, raw)


def _next(text: str, at: int) -> tuple[int, str]:
    """Start of the next mark, and the mark; "" for a mark that may still be incomplete, or for none."""
    start = text.find("<", at)
    while start >= 0:
        if text.startswith(_ALL, start):
            return start, text[start : text.index(">", start) + 1]
        if len(text) - start < _LONGEST and text[start:] in _BEGINNINGS:
            return start, ""
        start = text.find("<", start + 1)
    return len(text), ""
