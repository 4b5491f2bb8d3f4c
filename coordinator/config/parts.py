"""Parts that other packages build for a configuration: values `PREFIX:NAME`, such as `demo:library`.

A package registers a module of this protocol under its prefix, by an entry point of the group `llmi.parts`.
Invariant: the product imports no such package; it finds them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from rich.console import Console

from workers.errors import ConfigError

GROUP = "llmi.parts"
DEMO = "demo"  # the prefix in the shipped configurations


class Parts(Protocol):
    """What a module registered under a prefix provides."""

    def resolved(self, raw: Any, source: str) -> Any:
        """A configuration, read from `source`, with a path for each value of this prefix. Builds nothing.

        Raises `ConfigError` for an unknown name.
        """

    def missing(self, document: Mapping[str, Any]) -> Iterator[str]:
        """The dotted fields of a resolved configuration (plain values) that name a part not yet built."""

    def command(self, document: Mapping[str, Any]) -> str:
        """The command that builds what this configuration names."""

    def judge_model(self, name: Literal["text", "image"]) -> str:
        """The folder of a tiny judge model with random weights; built if it is missing."""

    def services(self, images: bool, policy: bool, console: Console) -> tuple[Path, dict[str, object]]:
        """Build what one document needs, with progress on `console`.

        `images`: the prompt has images. `policy`: build the tiny policy too, as the author.
        Returns a configuration file, and the overrides (dotted field to value) that name the parts.
        """


def find(prefix: str, field: str) -> Parts:
    """The parts of `prefix`. Raises `ConfigError` that names `field` if no installed package has them."""
    if prefix not in providers():
        raise ConfigError(
            f"{field}: no installed package provides {prefix}: parts (entry points of the group {GROUP}); "
            "install one that does, or name your own model, library and data"
        )
    return providers()[prefix]


def resolved(raw: Any, source: str) -> Any:
    """A configuration as read from `source`, each part's name replaced by its path. Raises `ConfigError`."""
    for one in providers().values():
        raw = one.resolved(raw, source)
    for field in _fields(raw, f"{DEMO}:"):  # none left when the package is installed
        find(DEMO, f"{source}: {field}")
    return raw


def missing(document: Mapping[str, Any]) -> Iterator[str]:
    """The dotted fields of a resolved configuration that name a part not yet built."""
    for one in providers().values():
        yield from one.missing(document)


def command(document: Mapping[str, Any]) -> str:
    """The command that builds the missing parts of a resolved configuration; empty when none is missing."""
    return next((one.command(document) for one in providers().values() if any(one.missing(document))), "")


@cache
def providers() -> Mapping[str, Parts]:
    """The registered modules by prefix."""
    return {point.name: cast(Parts, point.load()) for point in entry_points(group=GROUP)}


def _fields(value: Any, prefix: str, field: str = "") -> Iterator[str]:
    """The dotted fields with a value that starts with `prefix`."""
    if isinstance(value, str) and value.startswith(prefix):
        yield field
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _fields(one, prefix, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list):
        for one in value:
            yield from _fields(one, prefix, field)
