"""Parse a dictionary with badly quoted strings, from the keys that a tag has.

A quote ends a string only if the dictionary can continue after it: with a comma and a missing key, or with
its closing braces. All other quotes, apostrophes and line breaks belong to the string. Where several quotes
could end it, `code` ends at the last, because code can contain dictionaries; other strings end at the first.

Invariants: no input raises anything but `NoRepair`; time and memory are linear in the length; nothing is
evaluated.
"""

from __future__ import annotations

from itertools import chain

from policy.grammar.python_text import intended, unescaped
from policy.tools import tools
from workers.text.patterns import (
    CONSTANT,
    ESCAPE_OR_QUOTE,
    NUMBER,
    QUOTES,
    SPACE,
    Pattern,
    closing,
    quote_at,
)

_OUTER = ("source", "description", "params")
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_MAX_COMMENTS, _MAX_COMMENT = 3, 300  # in a row, and characters each; more is no comment of a tag


class NoRepair(Exception):
    """The text has no such dictionary. The message, if any, says what to write instead."""


def repaired(text: str) -> dict:
    """The dictionary in `text`. Raises `NoRepair`."""
    return _Dictionary(text).read()


class _Dictionary:
    def __init__(self, text: str):
        self._text = text
        self._params = {name: tuple(tool.params.model_fields) for name, tool in tools().items()}
        self._all_params = tuple(dict.fromkeys(chain.from_iterable(self._params.values())))
        # The longest first: an unquoted key may begin like another.
        self._names = tuple(sorted((*_OUTER, *self._all_params), key=len, reverse=True))
        self._outer: dict[str, object] = {}
        self._inner: dict[str, object] | None = None  # the params while they are read

    def read(self) -> dict:
        at = 1
        while True:
            at = self._pair(at)
            if self._inner is not None and (end := self._closed(at)):
                self._inner, at = None, end
            if self._inner is None and (end := self._closed(at)):
                if self._space(end) < len(self._text):
                    raise NoRepair
                return self._outer
            if not (comma := self._past(at, ",，")):
                raise NoRepair
            at = comma

    def _pair(self, at: int) -> int:
        """Read a key and its value. Returns their end."""
        name, at = self._key(at)
        inside = self._outer if self._inner is None else self._inner
        if not at or name in inside:
            raise NoRepair
        at = self._space(at)
        if name == "params" and inside is self._outer and self._text.startswith("{", at):
            params: dict[str, object] = {}
            self._outer[name] = params
            if end := self._closed(at + 1):
                return end
            self._inner = params
            return self._pair(at + 1)
        inside[name], end = self._value(name, at)
        return end

    def _key(self, at: int, names: tuple[str, ...] | None = None) -> tuple[str, int]:
        """A known key at `at` and the start of its value, or 0."""
        at = self._space(at)
        quoted = at < len(self._text) and self._text[at] in QUOTES
        at += quoted
        for name in self._names if names is None else names:
            if self._text.startswith(name, at):
                end = at + len(name)
                if quoted and not (end < len(self._text) and self._text[end] in QUOTES):
                    continue
                return name, self._past(end + quoted, ":：")
        return "", 0

    def _value(self, name: str, at: int) -> tuple[object, int]:
        """One string, small number or constant at `at`, and its end."""
        if number := NUMBER.match(self._text, at):
            return int(number[0]), number.end()
        if word := CONSTANT.match(self._text, at):
            return _CONSTANTS[word[1]], word.end()
        joined = self._joined(at, name)
        if joined and self._goes_on(joined[1], name):
            return joined
        raw_prefix = self._text[at : at + 1] in ("r", "R")
        if self._text[at : at + 1] and self._text[at] in "rRuU":
            at += 1
        if self._text[at : at + 1] not in tuple(QUOTES):
            raise NoRepair
        quotes = dict.fromkeys((quote_at(self._text, at), self._text[at]))
        for quote in quotes:
            start = at + len(quote)
            end = self._end(start, ESCAPE_OR_QUOTE[quote], len(quote), name)
            if end is not None:
                return self._decoded(name, self._text[start:end], quote, raw_prefix), end + len(quote)
        raise NoRepair

    def _decoded(self, name: str, raw: str, quote: str, raw_prefix: bool) -> str:
        if name == "code":
            return raw if raw_prefix else intended(raw, unescaped(raw))
        if _is_expression(raw, quote):
            raise NoRepair(f"{name}: strings are joined by an expression; write one string")
        return raw if raw_prefix else unescaped(raw)

    def _end(self, at: int, pattern: Pattern, width: int, name: str) -> int | None:
        """The quote that ends the string, or None."""
        last = None
        while (at := closing(self._text, at, pattern)) < len(self._text):
            if self._goes_on(at + width, name):
                last = at
                if name != "code":
                    break
            at += width
        return last

    def _joined(self, at: int, name: str) -> tuple[str, int] | None:
        """The value and the end of strings that Python joins, or of one in parentheses; None without any.

        They are joined by `+`, stand side by side in parentheses, or each on its own line. Strings with only
        blanks between them are joined too; in code only if the first ends with a line break, because
        `'plt.title(' ')'` is one string.
        """
        parenthesis = self._past(at, "(")
        at = self._space(parenthesis) if parenthesis else at
        texts: list[str] = []
        joined = bool(parenthesis)
        while True:
            raw_prefix = self._text[at : at + 1] in ("r", "R")
            at += raw_prefix
            if self._text[at : at + 1] not in ("'", '"'):
                return None
            quote = quote_at(self._text, at)
            end = closing(self._text, at + len(quote), ESCAPE_OR_QUOTE[quote])
            if end == len(self._text):
                return None
            raw = self._text[at + len(quote) : end]
            texts.append(raw if raw_prefix else unescaped(raw))
            at = end + len(quote)
            if plus := self._past(at, "+"):
                joined, after = True, self._space(plus)
            else:
                after = self._space(at)
                if self._text[after : after + 1] not in ("'", '"'):
                    break
                blanks = after > at and (name != "code" or raw.endswith(("\n", "\\n")))
                if not (parenthesis or blanks or "\n" in self._text[at:after]):
                    return None
                joined = True
            at = after
        if parenthesis:
            at = self._past(at, ")")
        return ("".join(texts), at) if joined and at else None

    def _goes_on(self, at: int, name: str) -> bool:
        """Whether the dictionary continues or ends at `at`, after the value of the key `name`."""
        if self._inner is None:
            missing = tuple(key for key in _OUTER if key not in self._outer and key != name)
            return self._ends(self._closed(at)) or self._next(at, missing)
        source = self._outer.get("source")
        keys = self._params.get(source, self._all_params) if isinstance(source, str) else self._all_params
        missing = tuple(key for key in keys if key not in self._inner and key != name)
        if self._next(at, missing):
            return True
        end = self._closed(at)
        missing = tuple(key for key in _OUTER if key not in self._outer)
        return bool(end) and (self._next(end, missing) or self._ends(self._closed(end)))

    def _next(self, at: int, names: tuple[str, ...]) -> bool:
        comma = self._past(at, ",，")
        return bool(comma) and bool(self._key(comma, names)[1])

    def _ends(self, at: int) -> bool:
        return bool(at) and self._space(at) == len(self._text)

    def _closed(self, at: int) -> int:
        """Position after a closing brace, with an optional comma before it; 0 without one."""
        return self._past(self._past(at, ",，") or at, "}")

    def _past(self, at: int, characters: str) -> int:
        """Behind one of the characters, and the space before it; 0 where none is."""
        at = self._space(at)
        return at + 1 if at < len(self._text) and self._text[at] in characters else 0

    def _space(self, at: int) -> int:
        """Behind white space and a few comments."""
        for _ in range(_MAX_COMMENTS):
            at = SPACE.match(self._text, at).end()  # type: ignore[union-attr] # matches anywhere
            if not self._text.startswith(("#", "//"), at):
                break
            end = self._text.find("\n", at, at + _MAX_COMMENT)
            if end < 0:
                break
            at = end
        return SPACE.match(self._text, at).end()  # type: ignore[union-attr] # as above


def _is_expression(raw: str, quote: str) -> bool:
    """Whether `raw` is several strings joined by an operator, as in `a' + 'b`.

    Then its quotes come in pairs: the first of a pair closes a string, the second opens the next.
    """
    pieces = raw.split(quote)
    between = [piece.strip() for piece in pieces[1::2]]
    return len(pieces) % 2 == 1 and any(
        text.startswith(("+", "%"))
        or text.endswith("+")
        or text == "or"
        or (text[:3] + text[-5:] == "if  else")
        for text in between
    )
