"""The content of a tag: its dictionary, the parameters of its tool, and why a tag is invalid.

The dictionary is a Python literal, JSON, or something close to either.

Invariants:
- No input raises, and nothing is evaluated. Time and memory are linear in the length.
- A literal of Python or JSON has the value that its language gives it, with two exceptions: strings side by
  side on one line can be one badly quoted string, and code is read as the model meant it
  (`policy.grammar.python_text.intended`).
- Other text is repaired (`policy.grammar.literal_repair`).
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, ValidationError

from policy.document import Tag
from policy.grammar.literal_repair import NoRepair, repaired
from policy.grammar.python_text import intended
from policy.tool import Prose
from policy.tools import tool_names, tools
from workers.messages import Message, valid_unicode
from workers.text.fences import unfenced
from workers.text.patterns import BRACE, ESCAPE_OR_QUOTE, TOKEN_START, closing, quote_at

MAX_CHARS = 120_000
"""Longest dictionary that is read: the longest code that a worker accepts, and the other keys."""

_MAX_SKELETON = 400  # characters outside string literals; limits the depth of nesting for the parsers


def _known(source: object) -> object:
    if not isinstance(source, str) or source not in tools():
        raise ValueError(f"must be one of {', '.join(tool_names())}")
    return source


class _Body(Message):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Annotated[str, BeforeValidator(_known)]
    description: Prose
    params: dict


@dataclass(frozen=True)
class Invalid:
    """Why a tag is invalid, in one line."""

    reason: str


def parse_tag(body: str, *, index: int, inputs: int) -> Tag | Invalid:
    """Parse the text between `<imgen>` and `</imgen>`.

    `index` is the tag's place among all tags of the document, from 0; `inputs` the number of images in the
    prompt. The number of an image to change counts the inputs first, then every tag, and must lie before this
    tag.
    """
    try:
        value = _clean(_dictionary(body))
    except _Unreadable as error:
        return Invalid(str(error))
    try:
        outer = _Body.model_validate(value)
    except ValidationError as error:
        return Invalid(_reason(error))
    tool = tools()[outer.source]
    try:
        params = tool.params.model_validate(outer.params)
    except ValidationError as error:
        return Invalid(_reason(error, f"{outer.source} params."))
    if tool.image_param and (number := getattr(params, tool.image_param)) >= inputs + index:
        return Invalid(f"params.{tool.image_param}: {number} does not lie before this tag ({inputs + index})")
    return Tag(source=outer.source, description=outer.description, params=params.model_dump())


def _clean(value: object) -> object:
    """Pair or replace lone surrogates, which escapes can produce, in strings and dictionaries."""
    if isinstance(value, str):
        return valid_unicode(value)
    if isinstance(value, dict):
        return {_clean(key) if isinstance(key, str) else key: _clean(item) for key, item in value.items()}
    return value


def _reason(error: ValidationError, prefix: str = "") -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:100]
    problem = {"missing": "is missing", "extra_forbidden": "is not one of its keys"}.get(
        first["type"], first["msg"].removeprefix("Value error, ")
    )
    return f"{prefix}{where}: {problem}"


class _Unreadable(ValueError):
    """The text is not a dictionary. The message is the reason, in one short line."""


def _dictionary(text: str) -> dict:
    """The dictionary in `text`. Raises `_Unreadable`."""
    text = unfenced(text.strip())
    if not text:
        raise _Unreadable("the tag is empty")
    if len(text) > MAX_CHARS:
        raise _Unreadable(f"the tag is longer than {MAX_CHARS} characters")
    if not text.startswith("{"):
        raise _Unreadable("the tag does not hold a dictionary: it must start with {")
    tokens = _tokens(text)
    value, reason = _strict(tokens)
    if value is None or tokens.joined:
        try:
            value = repaired(text)
        except NoRepair as error:
            if value is None:
                said = str(error) or f"neither a Python dictionary nor JSON: {reason}"
                raise _Unreadable(said) from None
    elif isinstance(value, dict):
        _restore_code(value, tokens)
    if not isinstance(value, dict):
        raise _Unreadable(f"the tag holds a {type(value).__name__}, not a dictionary")
    return value


def dictionary_end(text: str, at: int) -> int:
    """End of the first brace pair from `at` on, without braces in strings and comments; 0 if not closed."""
    depth = 0
    for start, end, quote in _strings_and_comments(text, at):
        for brace in BRACE.finditer(text, at, start):
            depth += 1 if brace[0] == "{" else -1
            if depth <= 0:
                return brace.end()
        at = end + len(quote)
    return 0


def _strings_and_comments(text: str, at: int = 0) -> Iterator[tuple[int, int, str]]:
    """Start, end and quote of each string and comment from `at` on, and of the end of the text.

    The end excludes the closing quote, and is the text's where none closes. A comment and the end of the text
    have no quote.
    """
    while found := TOKEN_START.search(text, at):
        start, quote = found.start(), ""
        if found[0] in "#/":
            at = end = _comment_end(text, start)
        else:
            quote = quote_at(text, start)
            end = closing(text, start + len(quote), ESCAPE_OR_QUOTE[quote])
            at = end + len(quote)
        if at:
            yield start, end, quote
        else:  # a single slash
            at = start + 1
    yield len(text), len(text), ""


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
    for start, end, quote in _strings_and_comments(text):
        gap = text[at:start]
        outside = "".join(gap.split())
        depth += gap.count("(") - gap.count(")")
        if outside:
            if tokens.strings and last == "" and outside.startswith(":"):
                tokens.strings[-1] = (*tokens.strings[-1][:2], True)
            last = outside
        at = min(len(text), end + len(quote))
        skeleton += [outside, '"' if quote else ""]
        bare += [gap, text[start:at] if quote or start == end else " "]
        if quote:
            tokens.joined |= bool(tokens.strings) and last == "" and depth == 0 and "\n" not in gap
            tokens.hidden |= last[-1:] in ("f", "F") or last[-2:].lower() in ("fr", "rf")
            tokens.strings.append((text[start + len(quote) : end], last[-1:], False))
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
