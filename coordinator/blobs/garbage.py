"""Which images of a blob store may go. Pure.

Invariants: what anybody names stays; what is younger than `keep_s` stays, named or not, for a job may have
stored it whose outcome nobody has written down yet; the rest may go, half-written files too.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from workers.storage.listing import ListedBlob


@dataclass(frozen=True)
class Classified:
    """Everything that is stored, each once: `named` by a reference, `young`, or `garbage`."""

    named: tuple[ListedBlob, ...]
    young: tuple[ListedBlob, ...]
    garbage: tuple[ListedBlob, ...]


def classify(stored: Iterable[ListedBlob], names: Set[str], *, now: float, keep_s: float) -> Classified:
    """`names`: every blob that a ledger, a document, a request or an outcome names; `now` in Unix seconds."""
    named, young, garbage = [], [], []
    for one in stored:
        if one.sha256 in names and not one.part:
            named.append(one)
        elif now - one.modified < keep_s:
            young.append(one)
        else:
            garbage.append(one)
    return Classified(tuple(named), tuple(young), tuple(garbage))
