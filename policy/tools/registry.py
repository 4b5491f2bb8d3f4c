"""The tools by name: one per module of this folder, and those of installed packages.

A package adds a tool by two entry points with the tool's name: a `Tool` in `llmi.tools`, and in `llmi.queues`
a `QueueSpec` of the module that registers the job. `check` names what is missing.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from policy.tools.base import Tool
from workers.errors import ConfigError
from workers.queues import QUEUES

GROUP = "llmi.tools"
_OTHER_MODULES = ("base", "registry")


@functools.cache
def tools() -> Mapping[str, Tool]:
    """Every tool, in the order of the system prompt. Raises `ConfigError` for one that is not complete."""
    found: dict[str, Tool] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in _OTHER_MODULES:
            found[module.name] = importlib.import_module(f"{__package__}.{module.name}").TOOL
    for point in entry_points(group=GROUP):
        tool = point.load()
        if not isinstance(tool, Tool) or tool.name != point.name:
            raise ConfigError(f"entry point {point.name!r} of {GROUP}: {point.value} is no Tool of that name")
        if point.name in found:
            raise ConfigError(f"entry point {point.name!r} of {GROUP}: the name exists; choose another")
        found[point.name] = tool
    return {tool.name: tool for tool in sorted(found.values(), key=lambda one: (one.order, one.name))}


def tool_names() -> tuple[str, ...]:
    """The names of all tools."""
    return tuple(tools())


def weights() -> dict[str, float]:
    """The weight of each tool in the tools score."""
    return {name: tool.weight for name, tool in tools().items()}


def caption(name: str) -> str:
    """What a page says of a tool's image; the name itself for a tool that is not installed here."""
    return tools()[name].caption if name in tools() else name


def check() -> list[str]:
    """Tools that have no queue or no job, each with what to do; empty when all are complete."""
    from workers.jobs import load_jobs  # imports every provider's libraries

    try:
        registered = load_jobs()
        unqueued = [name for name in tools() if name not in QUEUES]
        idle = [name for name in tools() if name in QUEUES and name not in registered]
    except ConfigError as error:
        return [str(error)]
    return [
        *(f"tool {name!r} has no queue; register its QueueSpec in llmi.queues" for name in unqueued),
        *(f"tool {name!r} has no job; register it in the module of its QueueSpec" for name in idle),
    ]
