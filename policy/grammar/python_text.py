"""The strings and comments in Python code of a model, and the code that an escaped copy of it means.

Invariants: no input raises; time is linear in the length; nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from workers.text.patterns import (
    CODE_SPECIAL,
    ESCAPE,
    ESCAPE_OR_QUOTE,
    ESCAPE_QUOTE_OR_LINE,
    QUOTE_OR_COMMENT,
    closing,
    quote_at,
)

_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": ""}
_CONTROLS = frozenset("\a\b\f\v\r\n")
_MATHTEXT_T = ("au", "heta", "imes", "ext", "o", "an", "ilde", "riangle", "op", "herefore")  # \tau, \theta, …


class String(NamedTuple):
    """A string literal in code: the text between its quotes, unchanged. `long`: triple quotes."""

    text: str
    closed: bool
    long: bool


def strings(code: str) -> Iterator[String]:
    """The string literals of `code`, in order. Comments hold none; a short string ends with its line."""
    at = 0
    while found := QUOTE_OR_COMMENT.search(code, at):
        at = found.start()
        if found[0] == "#":
            at = _line_end(code, at)
            continue
        delimiter = quote_at(code, at)
        start, long = at + len(delimiter), len(delimiter) == 3
        patterns = ESCAPE_OR_QUOTE if long else ESCAPE_QUOTE_OR_LINE
        end = closing(code, start, patterns[delimiter])
        closed = end < len(code) and code[end] != "\n"
        yield String(code[start:end], closed, long)
        at = end + (len(delimiter) if closed else 0)


def unescaped(raw: str) -> str:
    """Text with the common escapes of Python and JSON resolved; others stay unchanged."""
    return ESCAPE.sub(lambda found: _character(found[1], found[0]), raw)


def _character(code: str, whole: str) -> str:
    return chr(int(code[1:], 16)) if len(code) > 1 else _SIMPLE.get(code, whole)


def intended(raw: str, value: str) -> str:
    """The code that a model meant by a string literal.

    `raw`: the text between the literal's quotes. `value`: the value by the literal's own grammar.

    - Line breaks in `raw`: the model did not escape the code, so escapes in its strings belong to the code.
    - A control character in a string of `value`: the model escaped too little; the same holds.
    - Code on one line, with an escaped line break outside its strings: the model escaped it twice.
    - Anything else: `value` is meant.
    """
    if "\n" in raw or "\r" in raw:
        return _unescape(raw, lines=True)
    if any(map(_broken, strings(value))):
        repaired = _unescape(raw, lines=False)
        if all(string.closed for string in strings(repaired)):
            return repaired
    if r"\n" in value and not _CONTROLS.intersection(value) and _escaped_twice(value):
        return _unescape(value, lines=False)
    return value


def _escaped_twice(code: str) -> bool:
    """Whether an escaped line break stands outside the strings of the code, where Python allows none."""
    return sum(string.text.count(r"\n") for string in strings(code)) < code.count(r"\n")


def _broken(string: String) -> bool:
    """Whether a string of the code has a character that it could only get from a lost escape."""
    text = string.text
    if string.long:
        return False
    if not string.closed or not _CONTROLS.isdisjoint(text):
        return True
    return "$" in text and any(piece.startswith(_MATHTEXT_T) for piece in text.split("\t")[1:])


def _unescape(raw: str, *, lines: bool) -> str:
    """Resolve the escapes of `raw` that are outside the code's own strings.

    `lines`: the text has line breaks of its own, so an escaped one in a comment is part of the comment.
    """
    return _Unescaper(raw.removeprefix("\\\n"), lines).run()


class _Unescaper:
    """Copies code to `_out`, one special character at a time; the state is that of Python's own tokenizer.

    A string that an escaped quote opens is closed by an escaped quote, and its backslashes are doubled.
    """

    def __init__(self, raw: str, lines: bool):
        self._raw, self._lines = raw, lines
        self._at = 0
        self._out: list[str] = []
        self._delimiter = ""  # of the open string; empty outside of strings
        self._doubled = False  # an escaped quote opened it
        self._comment = False

    def run(self) -> str:
        while found := CODE_SPECIAL.search(self._raw, self._at):
            self._copy(found.start() - self._at)
            special, escaped = found[0], False
            if special == "\\":
                unit = ESCAPE.match(self._raw, self._at)
                if unit is None:  # the last character
                    break
                special, escaped = unit[1], True
            if special in ("'", '"'):
                self._quote(special, escaped)
            elif self._delimiter:
                self._in_string(special, escaped)
            else:
                self._outside(special, escaped)
        self._copy(len(self._raw) - self._at)
        return "".join(self._out)

    def _quote(self, quote: str, escaped: bool) -> None:
        width = 1 + escaped
        if self._comment or (self._delimiter and quote != self._delimiter[0]):
            self._replace(width, quote)
            return
        delimiter = quote_at(self._raw, self._at)
        delimiter, size = _escaped_quote(self._raw, self._at) if escaped else (delimiter, len(delimiter))
        if not self._delimiter:
            self._delimiter, self._doubled = delimiter, escaped
            self._replace(size, delimiter)
        elif escaped and not self._doubled:
            self._copy(width)
        elif len(self._delimiter) == 1 or len(delimiter) == 3:
            self._replace(size if len(self._delimiter) == len(delimiter) else width, self._delimiter)
            self._delimiter = ""
        else:  # one quote in a triple-quoted string
            self._replace(width, quote)

    def _in_string(self, special: str, escaped: bool) -> None:
        if special == "\\" and (self._doubled or not self._lines):
            unit = ESCAPE.match(self._raw, self._at + 2)
            end = unit.end() if unit else self._at + 3
            self._replace(end - self._at, "\\" + (unit[1] if unit else self._raw[self._at + 2 : end]))
            return
        self._copy(len(special) + escaped)
        if special == "\n" and not escaped and len(self._delimiter) == 1:  # a short string ends with its line
            self._delimiter = ""

    def _outside(self, special: str, escaped: bool) -> None:
        width = len(special) + escaped
        if self._comment and escaped and (self._lines or special != "n"):
            self._copy(width)
            return
        text = self._raw[self._at : self._at + width]
        if escaped and special != "\n":
            text = _character(special, text)
        self._comment = special == "#" or (self._comment and not text.endswith(("\n", "\r")))
        self._replace(width, text)

    def _copy(self, width: int) -> None:
        self._replace(width, self._raw[self._at : self._at + width])

    def _replace(self, width: int, text: str) -> None:
        self._out.append(text)
        self._at += width


def _escaped_quote(raw: str, at: int) -> tuple[str, int]:
    """The quote that a backslash at `at` escapes, and how many characters it takes; of a triple one, all."""
    quote = raw[at + 1]
    if raw.startswith(f"\\{quote}" * 3, at):
        return quote * 3, 6
    return quote, 2


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
