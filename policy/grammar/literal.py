"""Parse the dictionary in a tag: a Python literal, JSON, or something close to either.

Invariants:
- Nothing is evaluated. The only error is `Unreadable`. Time and memory are linear in the length.
- A literal of Python or JSON has the value that its language gives it, with two exceptions: strings side by
  side on one line can be one badly quoted string, and code is read as the model meant it
  (`policy.grammar.python_text.intended`).
- Other text is repaired (`policy.grammar.literal_repair`).
"""

from __future__ import annotations

import ast
import json
import warnings
from dataclasses import dataclass, field

from policy.grammar.literal_repair import NoRepair, repaired
from policy.grammar.python_text import closing, intended, quote_at
from workers.text.fences import unfenced
from workers.text.patterns import BRACE_OR_TOKEN, ESCAPE_OR_QUOTE, TOKEN_START

MAX_CHARS = 120_000
"""Longest dictionary that is read: the longest code that a worker accepts, and the other keys."""

_MAX_SKELETON = 400  # characters outside string literals; limits the depth of nesting for the parsers


class Unreadable(ValueError):
    """The text is not a dictionary. The message is the reason, in one short line."""


def read_dict(text: str) -> dict:
    """The dictionary in `text`. Raises `Unreadable`."""
    text = unfenced(text.strip())
    if not text:
        raise Unreadable("the tag is empty")
    if len(text) > MAX_CHARS:
        raise Unreadable(f"the tag is longer than {MAX_CHARS} characters")
    if not text.startswith("{"):
        raise Unreadable("the tag does not hold a dictionary: it must start with {")
    tokens = _tokens(text)
    value, reason = _strict(tokens)
    if value is None or tokens.joined:
        try:
            value = repaired(text)
        except NoRepair as error:
            if value is None:
                said = str(error) or f"neither a Python dictionary nor JSON: {reason}"
                raise Unreadable(said) from None
    elif isinstance(value, dict):
        _restore_code(value, tokens)
    if not isinstance(value, dict):
        raise Unreadable(f"the tag holds a {type(value).__name__}, not a dictionary")
    return value


def dictionary_end(text: str, at: int) -> int:
    """End of the first brace pair from `at` on, without braces in strings and comments; 0 if not closed."""
    depth = 0
    while found := BRACE_OR_TOKEN.search(text, at):
        start = found.start()
        at = _comment_end(text, start) if found[0] in "#/" else start + 1
        if found[0] in ("'", '"'):
            quote = quote_at(text, start)
            at = closing(text, start + len(quote), ESCAPE_OR_QUOTE[quote]) + len(quote)
        elif found[0] in "{}":
            depth += 1 if found[0] == "{" else -1
            if depth <= 0:
                return at
        at = at or start + 1
    return 0


@dataclass
class _Tokens:
    """The tokens of a literal.

    bare: the text without comments.
    skeleton: the text outside strings, without white space, each string as one quote.
    strings: content and prefix of each string, and whether a colon follows it.
    joined: two strings stand side by side on one line, outside parentheses.
    hidden: one is an f-string.
    """

    bare: str = ""
    skeleton: str = ""
    strings: list[tuple[str, str, bool]] = field(default_factory=list)
    joined: bool = False
    hidden: bool = False


def _tokens(text: str) -> _Tokens:
    """Split a literal. A short string may hold line breaks, as in lenient JSON."""
    tokens, skeleton, bare = _Tokens(), [], []
    at, depth, last = 0, 0, ""
    while True:
        found = TOKEN_START.search(text, at)
        start = found.start() if found else len(text)
        gap = text[at:start]
        bare.append(gap)
        outside = "".join(gap.split())
        skeleton.append(outside)
        depth += gap.count("(") - gap.count(")")
        if outside:
            if tokens.strings and last == "" and outside.startswith(":"):
                tokens.strings[-1] = (*tokens.strings[-1][:2], True)
            last = outside
        if found is None:
            break
        comment = _comment_end(text, start)
        if comment:
            bare.append(" ")
            at = comment
            continue
        if found[0] in "#/":
            skeleton.append(found[0])
            bare.append(found[0])
            last, at = found[0], start + 1
            continue
        quote = quote_at(text, start)
        end = closing(text, start + len(quote), ESCAPE_OR_QUOTE[quote])
        tokens.joined |= bool(tokens.strings) and last == "" and depth == 0 and "\n" not in gap
        tokens.hidden |= last[-1:] in ("f", "F") or last[-2:].lower() in ("fr", "rf")
        tokens.strings.append((text[start + len(quote) : end], last[-1:], False))
        skeleton.append('"')
        at = min(len(text), end + len(quote))
        bare.append(text[start:at])
        last = ""
    tokens.bare, tokens.skeleton = "".join(bare), "".join(skeleton)
    return tokens


def _comment_end(text: str, at: int) -> int:
    """End of the comment at `at`, of Python or JavaScript; 0 without one."""
    if text.startswith("/*", at):
        end = text.find("*/", at + 2)
        return len(text) if end < 0 else end + 2
    if text[at] == "#" or text.startswith("//", at):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    return 0


def _strict(tokens: _Tokens) -> tuple[object, str]:
    """The value of a well-formed literal and "", or None and the reason."""
    if tokens.hidden:
        return None, "an f-string is not a plain string"
    if len(tokens.skeleton) > _MAX_SKELETON:
        return None, "too much of it stands outside quotes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for "\d" and the like in the model's text
            return ast.literal_eval(tokens.bare), ""
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "it holds something that is no literal"
    try:
        return json.loads(tokens.bare, strict=False), ""
    except (ValueError, RecursionError):
        return None, str(reason)[:120]


def _restore_code(value: dict, tokens: _Tokens) -> None:
    """Replace the code of the literal by the code that the model meant."""
    params = value.get("params")
    if not isinstance(params, dict) or not isinstance(code := params.get("code"), str):
        return
    spelled = tokens.strings
    for i in range(len(spelled) - 1):
        name, _, is_key = spelled[i]
        raw, prefix, _ = spelled[i + 1]
        if is_key and name == "code":
            alone = i + 2 == len(spelled) or spelled[i + 2][2]  # and not joined with the next
            if alone and prefix not in ("r", "R"):
                params["code"] = intended(raw, code)
            return
