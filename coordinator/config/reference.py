"""docs/configuration.md, written from the fields of `RunConfig`: `python -m coordinator.config.reference`.

Invariants: every key of a configuration is in one table; sections of the same type share a table.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coordinator.config.errors import section
from coordinator.config.settings import RunConfig
from workers.settings import LocalPath, PlainUrl

FILE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
BOUNDS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
SIMPLE = {int: "integer", float: "number", bool: "boolean"}
TEXTS = {typing.get_args(LocalPath)[1]: "path", typing.get_args(PlainUrl)[1]: "URL"}  # by their validator
HEAD = """\
# Configuration

<!-- Written by `python -m coordinator.config.reference` from the docstrings of the settings; not by hand. -->

A run is described by one YAML file: `llmi train CONFIG` takes its path, or the name of a configuration from
[`configs/`](../configs). An evaluation needs no `train`, `data` and `ray`.

- **Overrides.** `llmi train CONFIG train.lr=1e-6 tools.search.provider=serpapi` sets single keys. Values are
  YAML. A number in a key is a place in a list: `workers.pools.0.high=4`.
- **Extending.** `extends: NAME` or `extends: ../other.yaml` takes over all values of another configuration.
  Sections are merged key by key; a list or a value replaces the other one. A path is relative to its file.
- **Checks.** An unknown key or a value out of range is refused with file, key and the nearest valid key.
  `llmi train CONFIG --dry-run` prints the resolved configuration.
- **Paths** may begin with `~` and hold `$VARIABLES`.
- **Secrets** are never in the file: keys and passwords are read from environment variables.

A default in *italics* is derived; the description says how.
"""


def document() -> str:
    """The whole page."""
    tables = [_table(model, places) for model, places in _sections(RunConfig, "", None).items()]
    return "\n".join((HEAD, *tables))


def _sections(model: type[BaseModel], key: str, default: object) -> dict[type[BaseModel], dict[str, object]]:
    """Each section type with its keys and, for each key, the default instance, if there is one."""
    found: dict[type[BaseModel], dict[str, object]] = {model: {key: default}}
    for name, field in model.model_fields.items():
        inner = section(field.annotation)
        if inner is None:
            continue
        own = getattr(default, name, field.default)
        many = isinstance(own, tuple)
        path = f"{key}.{name}".lstrip(".") + ("[]" if many else "")
        for below, places in _sections(inner, path, own if isinstance(own, inner) else None).items():
            found.setdefault(below, {}).update(places)
    return found


def _table(model: type[BaseModel], places: Mapping[str, object]) -> str:
    heading = " and ".join(f"`{key}`" for key in places if key) or "Top level"
    lines = [f"## {heading}", "", _one_line(model.__doc__ or ""), ""]
    lines += ["| key | type | default | range | description |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (
            f"`{name}`",
            _type(field.annotation, field.metadata),
            _defaults(name, field, places),
            _range(field),
            _one_line(field.description or ""),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _type(annotation: object, metadata: Sequence[object] = ()) -> str:
    if annotation is str:
        return next((name for validator, name in TEXTS.items() if validator in metadata), "text")
    for simple, name in SIMPLE.items():
        if annotation is simple:
            return name
    if section(annotation) is annotation:
        return "section"
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return ", ".join("null" if item is type(None) else _type(item) for item in inner)
    if origin is typing.Annotated:
        return _type(inner[0], inner[1:])
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    return "mapping"


def _range(field: FieldInfo) -> str:
    return ", ".join(_bounds(field))


def _bounds(field: FieldInfo) -> Iterator[str]:
    for item in field.metadata:
        for kind, (sign, attribute) in BOUNDS.items():
            if isinstance(item, kind):
                yield f"{sign} {getattr(item, attribute)}"
        if isinstance(item, MinLen):
            yield f"at least {item.min_length}"


def _defaults(name: str, field: FieldInfo, places: Mapping[str, object]) -> str:
    """One default, or one for each place where they differ."""
    if section(field.annotation) is field.annotation:
        return ""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "*derived*"
    shown = {key: _value(getattr(own, name, field.default)) for key, own in places.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return "; ".join(f"{key}: {value}" for key, value in shown.items())


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "<br>".join(_value(item) for item in value)
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"`{text}`" if text.strip() else f'`"{text}"`'


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
