"""Find implementations by name: the modules of a package, and entry points of installed packages.

Invariants:
- A module or entry point is imported when it is used, not to list the names.
- A name has one implementation. A second one of the same name is a `ConfigError`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from workers.errors import ConfigError

T = TypeVar("T")


@functools.cache
def loaders(package: str, attribute: str, group: str) -> Mapping[str, Callable[[], Any]]:
    """The implementations by name, built-in ones first; calling a value imports it.

    `package`: a built-in implementation is the value `attribute` of its module of that name; "" for none.
    `group`: the entry-point group in which other packages register theirs.
    """
    found: dict[str, Callable[[], Any]] = {}
    if package:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            found[module.name] = functools.partial(_built_in, f"{package}.{module.name}", attribute)
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        if point.name in found:
            raise ConfigError(
                f"entry point {point.name!r} of the group {group} has the name of another one; rename it"
            )
        found[point.name] = point.load
    return found


def subclass(what: str, name: str, base: type[T], package: str, attribute: str, group: str) -> type[T]:
    """The class with this name. Raises `ConfigError` for an unknown name, and for what is no `base`.

    `what`: such as "reward formula"; the other arguments as of `loaders`.
    """
    known = loaders(package, attribute, group)
    if name not in known:
        raise ConfigError(unknown(what, name, sorted(known), group))
    found = known[name]()
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{what} {name!r} is registered as {found!r}, which is no {base.__name__} class")
    return found


def unknown(what: str, name: str, known: Iterable[str], group: str) -> str:
    """The message for a name that nothing implements. `what`: such as "reward formula"."""
    return (
        f"{name!r} is not a {what}; known are {', '.join(known)} (packages add more in the entry-point group "
        f"{group})"
    )


def _built_in(module: str, attribute: str) -> Any:
    return getattr(importlib.import_module(module), attribute)
