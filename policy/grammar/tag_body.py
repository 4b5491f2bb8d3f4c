"""The content of a tag: the keys of its dictionary, the parameters of its tool, and why a tag is invalid.

Invariant: no input raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, ValidationError

from policy.document import Tag
from policy.grammar.literal import Unreadable, read_dict
from policy.tool import Prose
from policy.tools import tool_names, tools
from workers.messages import Message, valid_unicode


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
        value = _clean(read_dict(body))
    except Unreadable as error:
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
