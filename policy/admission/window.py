"""The window: how many groups to keep in flight. A pure controller, without I/O.

A group is open from its submission until all its rollouts have ended, and then ready until it is trained on
or dropped. `Window.size` groups are kept open: when one has ended, another is submitted, unless a whole batch
is ready as well.

The window grows while the trainer waits, the generator has room, and no queue has more requests waiting than
running: then the rollouts in flight wait for tools and judges and hold no generation slot. It shrinks when a
batch more than the next step needs is ready, or when groups became stale: more rollouts would only be older.
After a stale group it does not grow until the groups submitted before have passed.

Invariants:
- at least one batch is in flight, and at most `max_staleness` batches, which can all be trained on if they
  end in order;
- no more groups are submitted than the remaining steps need;
- the window grows in small parts, so that the effect of one is seen before the next.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOM = 0.5  # the generator has room while fewer than this share of its slots are used
PARTS = 8  # the window grows by this fraction of a batch at each poll


@dataclass(frozen=True)
class InFlight:
    """What is in flight at one moment.

    `ready`: groups that can be trained on. `open`: groups that have not ended. `generating`: rollouts that
    hold a generation slot, None if unknown. `backlogged`: queues with more requests waiting than running,
    None if Redis did not answer.
    """

    ready: int
    open: int
    generating: int | None = None
    backlogged: frozenset[str] | None = None


class Window:
    """Decides how many groups to submit.

    `batch`: groups per training step. `slots`: sequences that the generator writes at once. `first`: the
    initial size. `steps`: the last step of the run, None when the data decide.
    """

    def __init__(self, *, batch: int, max_staleness: int, slots: int, first: int, steps: int | None):
        self._batch = batch
        self._staleness = max_staleness
        self._most = max_staleness * batch
        self._slots = slots
        self._steps = steps
        self._part = max(1, batch // PARTS)
        self._no_growth_before = 0  # step
        self.size = self._within(first)

    def start_step(self, step: int, in_flight: InFlight, stale: int) -> int:
        """Groups to submit at the start of `step`.

        `stale`: groups that became stale since the step before.
        """
        if stale:
            self.size = self._within(self.size - max(self._part, self.size // 8))
            self._no_growth_before = step + self._staleness
        elif in_flight.ready >= 2 * self._batch:
            self.size = self._within(self.size - self._part)
        return self._missing(step, in_flight)

    def poll(self, step: int, in_flight: InFlight) -> int:
        """Groups to submit while the trainer waits for those of `step`. Call it about once a second."""
        starving = in_flight.generating is not None and in_flight.generating < ROOM * self._slots
        no_backlog = in_flight.backlogged == frozenset()
        if starving and no_backlog and in_flight.ready < self._batch and step >= self._no_growth_before:
            self.size = self._within(self.size + self._part)
        return self._missing(step, in_flight)

    def _missing(self, step: int, in_flight: InFlight) -> int:
        total = in_flight.ready + in_flight.open
        most = min(self._most, self.size + self._batch)
        missing = min(max(self.size - in_flight.open, self._batch - total), most - total)
        if self._steps is not None:
            missing = min(missing, self._batch * max(0, self._steps - step + 1) - total)
        return max(0, missing)

    def _within(self, size: int) -> int:
        return min(max(size, self._batch), self._most)
