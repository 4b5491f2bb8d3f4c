"""Which blobs of a store are garbage. Pure.

Invariants:
- A referenced blob stays.
- A blob younger than `keep_s` stays, since the outcome that references it may not be recorded yet.
- All else is garbage, half-written files too.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from workers.storage.listing import ListedBlob


@dataclass(frozen=True)
class Classified:
    """All stored blobs, each once: referenced (`named`), `young`, or `garbage`."""

    named: tuple[ListedBlob, ...]
    young: tuple[ListedBlob, ...]
    garbage: tuple[ListedBlob, ...]


def classify(stored: Iterable[ListedBlob], names: Set[str], *, now: float, keep_s: float) -> Classified:
    """Classify `stored`. `names`: every referenced blob. `now`: Unix seconds. `keep_s`: least age of
    garbage."""
    named, young, garbage = [], [], []
    for one in stored:
        if one.sha256 in names and not one.part:
            named.append(one)
        elif now - one.modified < keep_s:
            young.append(one)
        else:
            garbage.append(one)
    return Classified(tuple(named), tuple(young), tuple(garbage))
