"""The window: how many groups to keep in flight. A pure controller, without I/O.

A group is open from its submission until all its rollouts have ended, and then ready until it is trained on
or dropped. `Window.size` groups are kept open: when one has ended, another is submitted, unless a whole batch
is ready as well.

The window starts small and grows by a part of a batch at each poll while the generator has room and no queue
has more requests waiting than running: then the rollouts in flight wait for tools and judges and hold no
generation slot. Polls happen about once a second, and only while the trainer waits for a batch.

A queue that runs requests and has more of them waiting for `POLLS` polls marks the knee: beyond it, more
rollouts only wait longer. A queue without workers does not: they may be starting, or its circuit is open.
From then on the window changes by one part a step. It shrinks when a queue never emptied in the step
(`policy.admission.standing`), and grows when every queue did and the trainer waited. So it stays near what
Little's law asks for: throughput times the latency of a group that waits in no queue. A queue that runs twice
as many as at the knee has more workers: after a step with room the knee is searched again.

It also shrinks when a batch more than the next step needs is ready, or when groups became stale: more
rollouts would only be older. After a stale group it does not grow until the groups submitted before have
passed.

Invariants:
- at least one batch is in flight, and at most `max_staleness` batches, which can all be trained on if they
  end in order;
- no more groups are submitted than the remaining steps need;
- the window grows in small parts, so that the effect of one is seen before the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policy.admission.standing import POLLS, Load, StandingQueue

ROOM = 0.5  # the generator has room while fewer than this share of its slots are used
PARTS = 8  # the window changes by this fraction of a batch


@dataclass(frozen=True)
class InFlight:
    """What is in flight at one moment.

    `ready`: groups that can be trained on. `open`: groups that have not ended. `generating`: rollouts that
    hold a generation slot, None if unknown. `loads`: of the queues by name, None if Redis did not answer.
    """

    ready: int
    open: int
    generating: int | None = None
    loads: Mapping[str, Load] | None = None


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
        self._full_polls = 0  # last polls at which a queue with workers had more waiting than running
        self._knee: dict[str, int] = {}  # most requests that ran in each queue that marked the knee
        self._scaled = False  # whether one of them ran twice as many in this step
        self._standing = StandingQueue()
        self.size = self._within(first)

    def start_step(self, step: int, in_flight: InFlight, stale: int) -> int:
        """Groups to submit at the start of `step`.

        `stale`: groups that became stale since the step before.
        """
        if stale:
            self.size = self._within(self.size - max(self._part, self.size // 8))
            self._no_growth_before = step + self._staleness
        elif in_flight.ready >= 2 * self._batch or (self._knee and self._standing.stands):
            self.size = self._within(self.size - self._part)
        elif self._knee and self._standing.room:
            self._grow(step)
            if self._scaled:
                self._knee.clear()
        if self._standing.decided:
            self._standing, self._scaled = StandingQueue(), False
        return self._missing(step, in_flight)

    def poll(self, step: int, in_flight: InFlight) -> int:
        """Groups to submit while the trainer waits for those of `step`. Call it about once a second."""
        loads, generating = in_flight.loads, in_flight.generating
        if loads is not None and generating is not None:
            starving = generating < ROOM * self._slots and in_flight.ready < self._batch
            self._standing.add(loads, starving=starving)
            self._find_knee(loads)
            backlogged = any(load.waiting > load.running for load in loads.values())
            if starving and not backlogged and not self._knee:
                self._grow(step)
        return self._missing(step, in_flight)

    def _find_knee(self, loads: Mapping[str, Load]) -> None:
        self._scaled |= any(
            loads[queue].running >= 2 * most for queue, most in self._knee.items() if queue in loads
        )
        full = {queue: load.running for queue, load in loads.items() if load.waiting > load.running > 0}
        self._full_polls = self._full_polls + 1 if full else 0
        if self._full_polls >= POLLS:
            for queue, running in full.items():
                self._knee[queue] = max(running, self._knee.get(queue, 0))

    def _grow(self, step: int) -> None:
        if step >= self._no_growth_before:
            self.size = self._within(self.size + self._part)

    def _missing(self, step: int, in_flight: InFlight) -> int:
        total = in_flight.ready + in_flight.open
        most = min(self._most, self.size + self._batch)
        missing = min(max(self.size - in_flight.open, self._batch - total), most - total)
        if self._steps is not None:
            missing = min(missing, self._batch * max(0, self._steps - step + 1) - total)
        return max(0, missing)

    def _within(self, size: int) -> int:
        return min(max(size, self._batch), self._most)
