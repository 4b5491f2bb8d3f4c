"""How many groups a run has under way: a pure controller between a generator that starves and a trainer that
has enough.

A group is open from its submission until it has ended, and then ready until it is trained on or thrown away.
`Window.size` groups are kept open: when one has ended, another is submitted, unless a whole batch lies ready
beside them. The window grows while the trainer waits, the generator has room and no queue has more waiting
than running: then what is missing is rollouts, since those that are under way wait for tools and judges and
hold no generation slot. It shrinks when a batch more than the next step needs lies ready, or when groups came
too late to be trained on: more rollouts would only be older. After such a loss it does not grow until the
groups from before have passed. Invariants: at least one batch is under way, and at most `max_staleness`
batches, which could all be trained on were they to end in order; no more groups are asked for than the
remaining steps need; growth is gradual, so that what it does can be seen before it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOM = 0.5  # the generator has room while fewer than this share of its slots are taken
EIGHTH = 8  # a batch is grown by so many parts at each look


@dataclass(frozen=True)
class InFlight:
    """What is under way at one moment. `ready`: groups to be trained on; `open`: groups that have not ended;
    `writing`: rollouts that hold a generation slot, None when nobody told; `pressed`: queues in which more
    requests wait than run, None when Redis did not answer."""

    ready: int
    open: int
    writing: int | None = None
    pressed: frozenset[str] | None = None


class Window:
    """`batch`: groups trained on in a step; `slots`: sequences that the generator writes at once; `steps`:
    the last step of the run, None when the data decides; `first`: groups open at the start."""

    def __init__(self, *, batch: int, max_staleness: int, slots: int, first: int, steps: int | None):
        self._batch = batch
        self._staleness = max_staleness
        self._most = max_staleness * batch
        self._slots = slots
        self._steps = steps
        self._part = max(1, batch // EIGHTH)
        self._calm = 0  # the first step after a loss in which the window may grow again
        self.size = self._within(first)

    def begin(self, step: int, flight: InFlight, stale: int) -> int:
        """Groups to submit as `step` begins. `stale`: groups that came too late since the step before."""
        if stale:
            self.size = self._within(self.size - max(self._part, self.size // 8))
            self._calm = step + self._staleness
        elif flight.ready >= 2 * self._batch:
            self.size = self._within(self.size - self._part)
        return self._missing(step, flight)

    def wait(self, step: int, flight: InFlight) -> int:
        """Groups to submit while the trainer waits for those of `step`; to be asked every second or so."""
        starving = flight.writing is not None and flight.writing < ROOM * self._slots
        if starving and flight.pressed == frozenset() and flight.ready < self._batch and step >= self._calm:
            self.size = self._within(self.size + self._part)
        return self._missing(step, flight)

    def _missing(self, step: int, flight: InFlight) -> int:
        under_way = flight.ready + flight.open
        most = min(self._most, self.size + self._batch)
        missing = min(max(self.size - flight.open, self._batch - under_way), most - under_way)
        if self._steps is not None:
            missing = min(missing, self._batch * max(0, self._steps - step + 1) - under_way)
        return max(0, missing)

    def _within(self, size: int) -> int:
        return min(max(size, self._batch), self._most)
