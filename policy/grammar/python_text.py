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
    Pattern,
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


def quote_at(text: str, at: int) -> str:
    """The quote at `at`, all three characters of a triple one."""
    quote = text[at]
    return quote * 3 if quote in "'\"" and text.startswith(quote * 3, at) else quote


def closing(text: str, at: int, pattern: Pattern) -> int:
    """The first match of `pattern` (a backslash or a quote) that no backslash escapes; else the end."""
    while found := pattern.search(text, at):
        if found[0] != "\\":
            return found.start()
        at = found.end() + 1
    return len(text)


def unescaped(raw: str) -> str:
    """Text with the common escapes of Python and JSON resolved; others stay unchanged."""
    return ESCAPE.sub(lambda found: _character(found[1], found[0]), raw)


def _character(code: str, whole: str) -> str:
    return chr(int(code[1:], 16)) if len(code) > 1 else _SIMPLE.get(code, whole)


def intended(raw: str, value: str) -> str:
    """The code that a model meant by a string literal.

    `raw`: the text between the literal's quotes. `value`: the value by the literal's own grammar.

    A literal with line breaks in it was not escaped as a whole, and a string of the code that would hold a
    control character was not escaped enough. In both cases the escapes inside the code's own strings belong
    to the code. Code on one line with an escaped line break outside of its strings was escaped twice.
    """
    if "\n" in raw or "\r" in raw:
        return _as_written(raw, lines=True)
    if any(map(_broken, strings(value))):
        repaired = _as_written(raw, lines=False)
        if all(string.closed for string in strings(repaired)):
            return repaired
    if r"\n" in value and not _CONTROLS.intersection(value) and _escaped_twice(value):
        return _as_written(value, lines=False)
    return value


def _escaped_twice(code: str) -> bool:
    """Whether an escaped line break stands outside the strings of the code, where Python allows none."""
    return sum(string.text.count(r"\n") for string in strings(code)) < code.count(r"\n")


def _broken(string: String) -> bool:
    """Whether a literal of the code holds a character that only a lost escape explains."""
    text = string.text
    if string.long:
        return False
    if not string.closed or not _CONTROLS.isdisjoint(text):
        return True
    return "$" in text and any(piece.startswith(_MATHTEXT_T) for piece in text.split("\t")[1:])


def _as_written(raw: str, *, lines: bool) -> str:
    """`raw` with the escapes resolved that stand outside the code's own strings.

    A string that an escaped quote opens is closed by an escaped quote, and its backslashes are doubled.
    `lines`: line breaks stand in the text, so an escaped one in a comment is part of the comment.
    """
    out: list[str] = []
    at, inside, doubled, comment = 0, "", False, False
    raw = raw.removeprefix("\\\n")
    while found := CODE_SPECIAL.search(raw, at):
        out.append(raw[at : found.start()])
        at = found.start()
        special, escaped = found[0], False
        if special == "\\":
            escaped = True
            unit = ESCAPE.match(raw, at)
            if unit is None:  # the last character
                break
            special = unit[1]
        width = len(special) + escaped
        if special in ("'", '"') and comment:
            out.append(special)
            at += width
        elif special in ("'", '"'):
            delimiter, size = _escaped_quote(raw, at) if escaped else (quote_at(raw, at), 0)
            size = size or len(delimiter)
            if not inside:
                inside, doubled = delimiter, escaped
                out.append(delimiter)
                at += size
            elif special == inside[0] and (escaped == doubled or not escaped):
                if len(inside) == 1 or len(delimiter) == 3:
                    out.append(inside)
                    at += size if len(inside) == len(delimiter) else width
                    inside = ""
                else:
                    out.append(special)
                    at += width
            elif special == inside[0]:
                out.append(raw[at : at + width])
                at += width
            else:
                out.append(special)
                at += width
        elif inside and special == "\\" and (doubled or not lines):
            after = ESCAPE.match(raw, at + 2)
            out.append("\\" + (after[1] if after else raw[at + 2 : at + 3]))
            at = after.end() if after else at + 3
        elif inside or (comment and escaped and (lines or special != "n")):
            out.append(raw[at : at + width])
            at += width
            inside = "" if special == "\n" and not escaped and len(inside) == 1 else inside
        else:
            text = (
                _character(special, raw[at : at + width])
                if escaped and special != "\n"
                else raw[at : at + width]
            )
            comment = special == "#" or (comment and not text.endswith(("\n", "\r")))
            out.append(text)
            at += width
    out.append(raw[at:])
    return "".join(out)


def _escaped_quote(raw: str, at: int) -> tuple[str, int]:
    """The quote that a backslash at `at` escapes, and how many characters it takes; of a triple one, all."""
    quote = raw[at + 1]
    if raw.startswith(f"\\{quote}" * 3, at):
        return quote * 3, 6
    return quote, 2


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
