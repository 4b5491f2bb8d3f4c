"""The reward formulas: one module each, with the class `FORMULA`, and their registry.

May import `rewards.{formula,axes,facts,rules,verdicts}` and `workers`.

A built-in formula has the name of its module. Another package adds one in the entry-point group
`llmi.formulas`: the name of the entry point is the formula's, its value is a subclass of `Formula`.
"""

from __future__ import annotations

from rewards.formula import Formula
from workers.errors import ConfigError
from workers.extensions import loaders, subclass

GROUP = "llmi.formulas"


def names() -> tuple[str, ...]:
    """The names of the known formulas; imports none of them."""
    return tuple(loaders(__name__, "FORMULA", GROUP))


def get(name: str) -> Formula:
    """The formula of this name. Raises `ConfigError`, which lists the known ones, for an unknown name."""
    try:
        found = subclass("reward formula", name, Formula, __name__, "FORMULA", GROUP)()  # type: ignore[type-abstract]
    except ConfigError as error:
        raise ConfigError(f"reward.formula: {error}") from error
    if found.name != name:  # the breakdown of a reward has the name
        raise ConfigError(f"reward.formula: {name!r} is registered as a formula with the name {found.name!r}")
    return found
