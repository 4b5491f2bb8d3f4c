"""Messages for pydantic's errors about a configuration, with the field and what to do."""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterator, Sequence

from pydantic import BaseModel, ValidationError

from workers.text.names import near_names


def explain(
    model: type[BaseModel], error: ValidationError, source: str, overrides: Collection[str] = ()
) -> list[str]:
    """One line per problem: `source`: dotted field: what is wrong; what to do.

    `overrides`: the dotted keys of overridden values; a problem of one is named by its key.
    """
    return [
        _origin(problem, source, overrides) + _line(model, problem)
        for problem in error.errors()
        if problem["type"] != "default_factory_not_called"  # follows from another problem of the list
    ]


def _origin(problem: typing.Mapping, source: str, overrides: Collection[str]) -> str:
    """What the line of a problem begins with: the override that it comes from, else the file."""
    field = ".".join(str(part) for part in problem["loc"])
    for key in overrides:
        if key == field:
            return "override "
        made = problem["type"] == "extra_forbidden" and key.startswith(f"{field}.")
        if made or field.startswith(f"{key}."):
            return f"override {key}: "
    return f"{source}: "


def _line(model: type[BaseModel], problem: typing.Mapping) -> str:
    location: Sequence[str | int] = problem["loc"]
    field = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        *parents, last = location
        valid = sorted(keys_at(model, parents))
        near = near_names(str(last), valid)
        if near:
            return f"{field}: unknown key; did you mean {'.'.join(str(p) for p in (*parents, near[0]))}?"
        # Of keys with the same name, the first: those of a run come before those of `sft`.
        everywhere = {path.rpartition(".")[2]: path for path in reversed(list(paths(model)))}
        near = near_names(str(last), everywhere)
        if near:
            return f"{field}: unknown key; did you mean {everywhere[near[0]]}?"
        return f"{field}: unknown key; valid here: {', '.join(valid)}"
    if problem["type"] == "missing":
        return f"{field}: missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "assertion_error"):
        return f"{field}: {message}" if field else message
    return f"{field}: {message} (it is {problem['input']!r})"


def keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The valid keys of the section at `path`; none when `path` leads to no section."""
    here: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) if here else None
        here = section(field.annotation) if field else None
    return list(here.model_fields) if here else []


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the model and its sections."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = section(field.annotation)
        if inner:
            yield from paths(inner, f"{prefix}{name}.")


def section(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation, through tuples and optionals."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = section(inner)
        if found:
            return found
    return None
