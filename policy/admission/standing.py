"""The standing queue of a step: requests that were waiting at every poll. Pure, without I/O.

A queue that grows in bursts and empties between them keeps its workers busy. One that never empties does no
more than that, and every request waits longer: the rule of CoDel (RFC 8289). What counts is the poll with the
fewest requests waiting. As many as the root of those that ran at it are no standing queue, since chance alone
makes the number of waiting requests vary by that much.

Invariant: decides nothing before `POLLS` polls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

POLLS = 3


class Load(NamedTuple):
    """Requests of one queue."""

    waiting: int
    running: int


class StandingQueue:
    """The polls of one step."""

    def __init__(self) -> None:
        self._least: dict[str, Load] = {}
        self._polls = self._starving = 0

    def add(self, loads: Mapping[str, Load], *, starving: bool) -> None:
        """Add a poll. `starving`: whether the trainer waited, and the generator had room."""
        self._polls += 1
        self._starving += starving
        for queue, load in loads.items():
            self._least[queue] = min(self._least.get(queue, load), load)

    @property
    def decided(self) -> bool:
        return self._polls >= POLLS

    @property
    def stands(self) -> bool:
        """Whether a queue with workers has a standing queue."""
        least = self._least.values()
        return self.decided and any(load.running and load.waiting > math.sqrt(load.running) for load in least)

    @property
    def room(self) -> bool:
        """Whether every queue was empty once, and more rollouts were needed at most polls."""
        emptied = not any(load.waiting for load in self._least.values())
        return self.decided and emptied and 2 * self._starving > self._polls
