"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import takewhile

CUTOFF = 0.6  # of difflib's ratio, 0 to 1


def near_names(
    wanted: str, known: Iterable[str], most: int = 1, cutoff: float = CUTOFF, prefix: int | None = None
) -> list[str]:
    """The `known` names that `wanted` most likely means, at most `most` of them.

    `cutoff`: least similarity, from 0 to 1. `prefix`: for ids; all names that share the longest beginning
    with `wanted` come instead, if it has at least this many characters (or is all of `wanted`).
    """
    names = list(known)
    if prefix is not None and names:
        shared = {name: _shared(wanted, name) for name in names}
        longest = max(shared.values())
        if longest >= min(prefix, len(wanted)):
            return sorted(name for name, length in shared.items() if length == longest)
    return difflib.get_close_matches(wanted, names, n=most, cutoff=cutoff)


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
