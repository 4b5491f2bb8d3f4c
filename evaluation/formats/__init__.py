"""Benchmark formats: one module each, with the class `FORMAT`, and their registry.

May import `evaluation.benchmark`, `evaluation.json_items`, `policy` and `workers`.

A built-in format has the name of its module. Another package adds one in the entry-point group
`llmi.formats`: the name of the entry point is the format's, its value is a subclass of
`evaluation.benchmark.Format`.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.benchmark import Benchmark, Format
from policy.data.files import head
from workers.errors import ConfigError as ConfigError
from workers.extensions import loaders, subclass

GROUP = "llmi.formats"
DEFAULT = "llmi_bench"  # for a file that no format recognises


def names() -> tuple[str, ...]:
    """The names of the known formats; imports none of them."""
    return tuple(loaders(__name__, "FORMAT", GROUP))


def get(name: str) -> Format:
    """The format of this name. Raises `ConfigError`, which lists the known ones, for an unknown name."""
    return subclass("benchmark format", name, Format, __name__, "FORMAT", GROUP)()  # type: ignore[type-abstract]


def load(path: str | Path, limit: int | None = None, format_name: str = "") -> Benchmark:
    """Read a benchmark file; decodes no image. Raises `ConfigError`.

    `limit`: only the first items; `format_name`: "" to find it by the file's name and first bytes.
    """
    path = Path(path)
    known = {name: get(name) for name in names()}
    first = head(path, ", or ".join(one.files for one in known.values()))
    if format_name:
        chosen = get(format_name)
    else:
        # Formats of other packages first, so that they can have .json files of their own.
        matching = [one for one in reversed(known.values()) if one.matches(path, first)]
        chosen = matching[0] if matching else known[DEFAULT]
    return Benchmark(name=path.name, kind=chosen.kind, entries=tuple(chosen.read(path)[:limit]))
