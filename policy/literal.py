"""Read the dictionary a model wrote inside a tag: Python literal, JSON, or something close to either.

Invariants: nothing is ever evaluated; the only error is `Unreadable`; time and memory grow linearly with the
length of the text. What is close to a literal is repaired by the tag's own grammar: a string ends at the
quote after which the dictionary goes on (a known key, or its closing braces), so apostrophes and raw line
breaks inside it survive.
"""

from __future__ import annotations

import ast
import json
import re
import warnings

MAX_CHARS = 120_000
"""Longest dictionary that is read: the longest chart code a worker takes, and room around it."""

_MAX_SKELETON = 400  # characters outside string literals; bounds the depth of what the parsers see


class Unreadable(ValueError):
    """The text is no dictionary; the message says why, in one short line."""


# What Python's own tokenizer takes for a string. Every alternative ends at the end of the text too, so that
# no scan is ever repeated from a later quote.
_STRINGS = re.compile(
    r"'''(?:[^'\\]|\\.|'(?!''))*+(?:'''|\\?\Z|'{1,2}\Z)"
    r'|"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\\?\Z|"{1,2}\Z)'
    r"|'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?\Z)"
    r'|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)',
    re.DOTALL,
)
_HIDDEN = re.compile(r'#|[fF][rR]?"')  # comments and f-strings could hide nesting from the bound

_NAMES = "source|description|params|prompt|query|code|img_index"
_QUOTE = "['\"‘’“”]"
_CLOSERS = {"'": "'", '"': '"', "‘": "’'", "’": "’'", "“": '”"', "”": '”"', "'''": "'''", '"""': '"""'}
_KEY = re.compile(rf"\s*+{_QUOTE}({_NAMES}){_QUOTE}\s*+:\s*+")
_OPENER = re.compile(rf"[rRuU]?('''|\"\"\"|{_QUOTE})")
_NUMBER = re.compile(r"-?\d{1,9}(?![\w.])")
_WORD = re.compile(r"(True|False|None|true|false|null)\b")
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_NEXT_KEY = rf"\s*+,\s*+{_QUOTE}(?:{_NAMES}){_QUOTE}\s*+:"
_CLOSE = r"\s*+(?:,\s*+)?\}"
_GOES_ON = re.compile(rf"{_NEXT_KEY}|{_CLOSE}(?:{_NEXT_KEY}|{_CLOSE}\s*+\Z|\s*+\Z)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": ""}


def read_dict(text: str) -> dict:
    """The dictionary in `text`. Raises `Unreadable`."""
    text = text.strip()
    if not text:
        raise Unreadable("the tag is empty")
    if len(text) > MAX_CHARS:
        raise Unreadable(f"the tag is longer than {MAX_CHARS} characters")
    if not text.startswith("{"):
        raise Unreadable("the tag does not hold a dictionary: it must start with {")
    value, reason = _strict(text)
    if value is None:
        try:
            value = _repaired(text)
        except _NoRepair:
            raise Unreadable(f"neither a Python dictionary nor JSON: {reason}") from None
    if not isinstance(value, dict):
        raise Unreadable(f"the tag holds a {type(value).__name__}, not a dictionary")
    return value


def _strict(text: str) -> tuple[object, str]:
    """The value of a well-formed literal and "", or None and what is wrong with it."""
    skeleton = re.sub(r"\s+", "", _STRINGS.sub('"', text))
    if len(skeleton) > _MAX_SKELETON or _HIDDEN.search(skeleton):
        return None, "too much of it stands outside quotes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" and the like are the model's business
            return ast.literal_eval(text), ""
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "it holds something that is no literal"
    try:
        return json.loads(text, strict=False), ""
    except (ValueError, RecursionError):
        return None, str(reason)[:120]


class _NoRepair(Exception):
    pass


def _repaired(text: str) -> dict:
    """Follow the known keys through the text. Raises `_NoRepair`."""
    outer: dict[str, object] = {}
    inside: dict[str, object] = outer
    at = 1
    while True:
        key = _KEY.match(text, at)
        if key is None:
            raise _NoRepair
        name, at = key[1], key.end()
        if name in inside:
            raise _NoRepair
        if name == "params" and inside is outer and text.startswith("{", at):
            inner: dict[str, object] = {}
            outer[name], inside, at = inner, inner, at + 1
            empty = re.compile(r"\s*+\}").match(text, at)
            if empty is None:
                continue
            inside, at = outer, empty.end()
        else:
            inside[name], at = _value(text, at)
        end = re.compile(_CLOSE).match(text, at)
        if end and inside is not outer:
            inside, at = outer, end.end()
            end = re.compile(_CLOSE).match(text, at)
        if end:
            if text[end.end() :].strip() or inside is not outer:
                raise _NoRepair
            return outer
        comma = re.compile(r"\s*+,").match(text, at)
        if comma is None:
            raise _NoRepair
        at = comma.end()


def _value(text: str, at: int) -> tuple[object, int]:
    """One string, small number or constant at `at`, and where it ends."""
    if number := _NUMBER.match(text, at):
        return int(number[0]), number.end()
    if word := _WORD.match(text, at):
        return _WORDS[word[1]], word.end()
    opener = _OPENER.match(text, at)
    if opener is None:
        raise _NoRepair
    closers = _CLOSERS[opener[1]]
    pattern = re.escape(closers) if len(closers) == 3 else f"[{closers}]"
    start = opener.end()
    for quote in re.compile(rf"\\.|{pattern}", re.DOTALL).finditer(text, start):
        if not quote[0].startswith("\\") and _GOES_ON.match(text, quote.end()):
            raw = text[start : quote.start()]
            return (raw if opener[0][0] in "rR" else _ESCAPE.sub(_unescape, raw)), quote.end()
    raise _NoRepair


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return _SIMPLE.get(code, match[0])
