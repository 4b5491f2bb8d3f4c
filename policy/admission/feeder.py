"""Submit prompts: how many groups a run requests from verl, and when.

With a window, as `policy.admission.window` decides; without one, as many as verl has dropped.

Invariants:
- in a run with a window nothing else submits prompts;
- during a pause (`policy.admission.pause`) only probe groups are submitted; replacements that verl requests
  are deferred until it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from policy.admission.pause import Pause
from policy.admission.standing import Load
from policy.admission.window import InFlight, Window
from policy.inflight import QueueWatcher
from workers.broker.depths import QueueDepth
from workers.broker.keys import LEVELS
from workers.messages import NORMAL
from workers.settings import QueueSettings


class PromptFeeder:
    """Submits prompts through `submit`, verl's `refill_fn`, which takes the number of prompts."""

    def __init__(
        self, submit: Callable[[int], Any], window: Window | None, pause: Pause, queue: QueueSettings
    ):
        self.submit = submit
        self.window = window
        self.pause = pause
        self.watcher = QueueWatcher(queue)
        self._generating: int | None = None
        self._deferred = 0

    def refill(self, prompts: int) -> None:
        """Replace `prompts` groups that verl has dropped."""
        if not self.pause.on:
            self.submit(prompts)
        elif self.window is None:  # a window notices that they are missing
            self._deferred += prompts

    def update(
        self, *, usable: AbstractSet[str], unusable: AbstractSet[str], open_: AbstractSet[str]
    ) -> None:
        """Start or end a pause (see `Pause.update`); after one, submit what was deferred."""
        self.pause.update(usable=usable, unusable=unusable, open_=open_)
        if self._deferred and not self.pause.on:
            deferred, self._deferred = self._deferred, 0
            self.submit(deferred)

    def start_step(self, step: int, in_flight: InFlight, stale: int) -> None:
        """Submit what is missing at the start of `step`. `stale`: groups that became stale since the last."""
        if self.window is not None:
            self._submit(self.window.start_step(step, in_flight, stale))

    def poll(self, step: int, in_flight: InFlight) -> None:
        """While the trainer waits, replace groups that have ended, and submit more if that helps."""
        if self.pause.on:
            if self.pause.should_probe(in_flight.open):
                self._deferred = max(0, self._deferred - 1)
                self.submit(1)
            return
        if self.window is None:
            return
        if (seen := self.watcher.poll()) is not None:
            self._generating, depths = seen
            loads = None if depths is None else {name: _load(depth) for name, depth in depths.items()}
            in_flight = replace(in_flight, generating=self._generating, loads=loads)
        self._submit(self.window.poll(step, in_flight))

    def metrics(self, in_flight: InFlight, sampled: int) -> dict[str, int]:
        """What is in flight besides the `sampled` groups of this step."""
        if self.window is None:
            return {}
        metrics = {
            "flight/window": self.window.size,
            "flight/ready": in_flight.ready - sampled,
            "flight/open": in_flight.open,
        }
        return metrics if self._generating is None else {**metrics, "flight/writing": self._generating}

    def _submit(self, prompts: int) -> None:
        if prompts and not self.pause.on:
            self.submit(prompts)


def _load(depth: QueueDepth) -> Load:
    """The load without requests that training overtakes, such as those of a batch evaluation."""
    return Load(sum(depth.by_level[: LEVELS.index(NORMAL) + 1]), depth.running)
