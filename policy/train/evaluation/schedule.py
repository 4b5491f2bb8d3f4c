"""When to evaluate. Pure, without I/O.

A version of the weights is the number of updates: version 0 is the initial model, version k that after step
k. Version 0, every `every`-th one and that of the last step are due.

Invariants:
- one evaluation is open at a time: one that is due meanwhile is skipped and counted;
- the last version is not skipped: it is evaluated after the last step;
- an evaluation without a result when the run was stopped is done again on a resume, with the weights of its
  checkpoint, which the version of the result says.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class Schedule:
    """`every`: steps between two evaluations. `last`: the last step. `skipped`: evaluations so far, also
    before a resume.
    """

    every: int
    last: int
    skipped: int = 0

    def due(self, version: int) -> bool:
        """Whether this version is to be evaluated."""
        return version % self.every == 0 or version == self.last

    def due_at_start(self, version: int, done: Collection[int]) -> bool:
        """Whether to evaluate before the first step. `version`: of the checkpoint, 0 without one. `done`: the
        versions that have a result.
        """
        latest = version if self.due(version) else version - version % self.every
        return all(one < latest for one in done)

    def start(self, version: int, *, open_: bool) -> bool:
        """Whether to start an evaluation after a step. `open_`: another one has not ended."""
        if not self.due(version):
            return False
        self.skipped += open_ and version != self.last
        return not open_
