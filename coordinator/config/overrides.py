"""Overrides of single configuration values: `KEY=VALUE` on a command line, dotted keys in a program.

Invariants: an override is checked like the file; an error names the override; the mapping that is overridden
stays as it is, since YAML anchors share parts of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from workers.errors import ConfigError

EXAMPLE = "such as train.lr=1e-6"


def parse(texts: Iterable[str]) -> dict[str, object]:
    """`KEY=VALUE` texts as dotted keys and YAML values (numbers, booleans, `null`, `[a, b]`, `{a: 1}`).

    Raises `ConfigError` that names the text.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"override {text!r}: has no value; write KEY=VALUE, {EXAMPLE}")
        if not all(key.split(".")):
            raise ConfigError(f"override {text!r}: has no key; write KEY=VALUE, {EXAMPLE}")
        if key in found:
            raise ConfigError(f"override {key}: given twice; leave one out")
        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(
                f"override {text!r}: the value is not YAML; put it in quotes: {key}='\"...\"'"
            ) from error
    return found


def apply(raw: Mapping[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """A copy of `raw` with each dotted key set. A number in a key is a place in a list, from 0.

    Raises `ConfigError` for a key below a value that is no section.
    """
    result = dict(raw)
    for key, value in overrides.items():
        result = _put(result, key.split("."), value, key)
    return result


def _put(here: Any, path: list[str], value: object, key: str) -> Any:
    if not path:
        return value
    first, *rest = path
    if isinstance(here, list):
        if not first.isdecimal() or int(first) >= len(here):
            last = f"0 to {len(here) - 1}" if here else "none, since the list is empty"
            raise ConfigError(f"override {key}: {first!r} is no place in the list; valid: {last}")
        copied = list(here)
        copied[int(first)] = _put(here[int(first)], rest, value, key)
        return copied
    if here is not None and not isinstance(here, Mapping):
        above = key.removesuffix("." + ".".join(path))
        raise ConfigError(f"override {key}: {above} is {here!r} and has no keys below it; override {above}")
    section = dict(here or {})
    section[first] = _put(section.get(first), rest, value, key)
    return section
