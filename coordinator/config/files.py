"""YAML configuration files: where they are, how they are read, and how one extends another.

Invariants: a key that is given twice is refused, and so is a file that extends itself; every error is a
`ConfigError` that names the file and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from workers.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "configs"
EXTENDS = "extends"
TOO_DEEP = "is nested too deeply, or refers to itself; write it flat, without anchors"


def shipped() -> list[str]:
    """The names of the configurations that come with llmi."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def find(path: str | Path) -> Path:
    """The file at `path`, or the shipped configuration of that name; a path is never read as a name."""
    given = Path(path).expanduser()
    if given.is_file():
        return given
    if str(path) in shipped():
        return SHIPPED / f"{path}.yaml"
    raise ConfigError(f"{given}: no such configuration; name a YAML file or one of {', '.join(shipped())}")


def read(path: str | Path) -> tuple[dict[str, Any], str]:
    """The values of a configuration, merged with those that it extends, and its files for messages."""
    file = find(path)
    try:
        values, files = _extended(file, ())
        return values, str(file) + "".join(f" (extends {base})" for base in files[1:2])
    except RecursionError as error:
        raise ConfigError(f"{file}: {TOO_DEEP}") from error


def merged(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values` put over it: mappings are merged key by key, all else is replaced."""
    result = dict(base)
    for key, value in values.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[key] = value
    return result


def _extended(file: Path, extending: Sequence[Path]) -> tuple[dict[str, Any], list[Path]]:
    """Values and files, the extending one first. `extending`: the files that led here."""
    if file.resolve() in [one.resolve() for one in extending]:
        chain = " -> ".join(str(one) for one in (*extending, file))
        raise ConfigError(f"{extending[-1]}: extends: leads back to itself ({chain}); remove one `extends`")
    values = _mapping(file)
    name = values.pop(EXTENDS, None)
    if name is None:
        return values, [file]
    below, files = _extended(_base(file, name), (*extending, file))
    return merged(below, values), [file, *files]


def _base(file: Path, name: object) -> Path:
    """The file that `file` extends."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{file}: extends: must be one name or path (it is {name!r})")
    near = file.parent / Path(name).expanduser()
    if near.is_file():
        return near
    if name in shipped():
        return SHIPPED / f"{name}.yaml"
    raise ConfigError(
        f"{file}: extends: {near} does not exist; name a YAML file, relative to this one, or one of "
        f"{', '.join(shipped())}"
    )


def _mapping(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); name a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or "bad syntax"
        raise ConfigError(f"{where}: not valid YAML: {problem}; fix this line") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: {TOO_DEEP}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: must hold a mapping of sections, such as tools, judges, train and data")
    return raw


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML's own loader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or mapping as key: refused by the loader's own method
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
