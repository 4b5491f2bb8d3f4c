"""What stands inside a tag: the dictionary's keys, the parameters of each source, and why a tag is invalid.

Invariant: no input raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from policy.document import SOURCES, Source, Tag
from policy.grammar.literal import Unreadable, read_dict
from workers.messages import Message, valid_unicode


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
    """Why a tag is invalid, in one line."""

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
        return valid_unicode(value)
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
