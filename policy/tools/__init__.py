"""The tools as the model calls them: one module per tool, which defines `TOOL`, and their registry.

May import `policy.tool` and `workers`.

Another package adds a tool by two entry points with the tool's name: a `Tool` in `llmi.tools`, and in
`llmi.queues` a `QueueSpec` of the module that registers the job. `check` lists tools without one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from policy.tool import Tool
from workers.errors import ConfigError
from workers.extensions import loaders
from workers.queues import QUEUES

GROUP = "llmi.tools"


@functools.cache
def tools() -> Mapping[str, Tool]:
    """Every tool, in the order of the system prompt. Raises `ConfigError` for one that is not complete."""
    found = []
    for name, load in loaders(__name__, "TOOL", GROUP).items():
        tool = load()
        if not isinstance(tool, Tool) or tool.name != name:
            raise ConfigError(f"tool {name!r}: {tool!r} is not a Tool of that name")
        found.append(tool)
    return {tool.name: tool for tool in sorted(found, key=lambda one: (one.order, one.name))}


def tool_names() -> tuple[str, ...]:
    """The names of all tools."""
    return tuple(tools())


def weights() -> dict[str, float]:
    """The weight of each tool in the tools score."""
    return {name: tool.weight for name, tool in tools().items()}


def caption(name: str) -> str:
    """The caption of a tool's image on a page; the tool's name if the tool is not installed here."""
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
