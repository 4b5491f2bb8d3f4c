"""The providers by name: one per module of `search/` and `image/`, and those of installed packages.

A built-in provider is the class `PROVIDER` of the module of its name. A package adds one with an entry point
of the group `llmi.search_providers` or `llmi.image_providers`: the provider's name, and the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workers.errors import ConfigError
from workers.extensions import loaders, subclass
from workers.providers.provider import Provider
from workers.queues import QUEUES
from workers.settings import ProviderSettings, SearchSettings, ToolSettings, section

TOOLS = ("search", "diffusion", "edit")
Kind = Literal["search", "image"]


def names(kind: Kind) -> tuple[str, ...]:
    """The known providers, in alphabetical order."""
    return tuple(sorted(_loaders(kind)))


def provider_class(kind: Kind, name: str) -> type[Provider]:
    """Raises `ConfigError`, which lists the known providers, for an unknown name."""
    package, what = f"{__package__}.{kind}", f"{kind} provider"
    try:
        return subclass(what, name, Provider, package, "PROVIDER", _group(kind))  # type: ignore[type-abstract]
    except ConfigError as error:
        raise ConfigError(f"provider: {error}") from error


def make(tool: str, settings: ProviderSettings) -> Provider:
    """The provider of one tool as `settings` configure it. Raises `ConfigError`."""
    kind: Kind = "search" if isinstance(settings, SearchSettings) else "image"
    try:
        return provider_class(kind, settings.provider)(settings, tool)
    except ConfigError as error:
        where = "" if str(error).startswith("tools.") else f"tools.{tool}."
        raise ConfigError(f"{where}{error}") from error


def of_tools(tools: ToolSettings) -> dict[str, Provider]:
    """The provider of every tool that has one. Raises `ConfigError`."""
    return {tool: make(tool, getattr(tools, tool)) for tool in TOOLS}


def configured(tool: str) -> Provider:
    """The provider of `tool` by this process's configuration. Raises `ConfigError`."""
    return make(tool, getattr(section("tools", ToolSettings), tool))


def environment() -> tuple[str, ...]:
    """The environment variables that any known provider may read."""
    kinds: tuple[Kind, ...] = ("search", "image")
    every = (name for kind in kinds for one in names(kind) for name in provider_class(kind, one).environment)
    return tuple(dict.fromkeys(every))


def pool_type(queues: Sequence[str], tools: ToolSettings) -> Literal["prefork", "threads"]:
    """The Celery pool of a worker that serves `queues`: threads where all their jobs wait for the network,
    as the queue table says or because their provider holds no model. Raises `ConfigError`.
    """

    def waits(queue: str) -> bool:
        if queue in TOOLS:
            return not make(queue, getattr(tools, queue)).holds_model
        return QUEUES[queue].pool == "threads"

    return "threads" if all(waits(queue) for queue in queues) else "prefork"


def check(tools: ToolSettings) -> list[str]:
    """What the configured providers lack before a run, each with its field and what to do. Reads settings,
    environment, folders and the installed diffusers' source only.
    """
    problems: list[str] = []
    for tool in TOOLS:
        try:
            problems += make(tool, getattr(tools, tool)).check()
        except ConfigError as error:
            problems.append(str(error))
    return problems


def _group(kind: Kind) -> str:
    return f"llmi.{kind}_providers"


def _loaders(kind: Kind) -> Mapping[str, Any]:
    return loaders(f"{__package__}.{kind}", "PROVIDER", _group(kind))
