"""Which samples of a group may vote: masked ones leave its baseline, its deviation and its loss.

Invariant: a masked sample is never given a number; a group with too few voters is replaced as a whole,
because a baseline of one sample teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policy.scoring import Score


@dataclass(frozen=True)
class Vote:
    """`voters`: positions of the samples that may vote, in order. `replace`: too few, draw the group anew."""

    voters: tuple[int, ...]
    replace: bool


def vote(scores: Sequence[Score], min_siblings: int = 2) -> Vote:
    """Decide for one group of siblings."""
    valid = tuple(position for position, score in enumerate(scores) if score.reward is not None)
    replace = len(valid) < min_siblings
    return Vote(voters=() if replace else valid, replace=replace)
