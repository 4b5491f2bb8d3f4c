"""How many groups a run asks verl for, and when.

With a window as `policy.admission.window` decides; without one, as many as verl has thrown away.
Invariants: nobody else submits a prompt of a run with a window; while `policy.admission.pause` holds
admission nothing is asked for but groups that try the provider, and those that verl would have put in the
place of others are owed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from policy.admission.pause import Pause
from policy.admission.window import InFlight, Window
from policy.inflight import QueueWatcher
from workers.settings import QueueSettings


class PromptFeeder:
    """`ask_for`: verl's own `refill_fn`, which submits so many."""

    def __init__(
        self, ask_for: Callable[[int], Any], window: Window | None, pause: Pause, queue: QueueSettings
    ):
        self.ask_for = ask_for
        self.window = window
        self.pause = pause
        self.lookout = QueueWatcher(queue)
        self._writing: int | None = None
        self._owed = 0

    def refill(self, prompts: int) -> None:
        """verl has thrown so many away."""
        if not self.pause.on:
            self.ask_for(prompts)
        elif self.window is None:  # else the window finds them missing
            self._owed += prompts

    def look(self, *, usable: AbstractSet[str], unusable: AbstractSet[str], open_: AbstractSet[str]) -> None:
        """Begin or end a pause, as groups that ended and providers tell; what was owed is submitted after."""
        self.pause.look(usable=usable, unusable=unusable, open_=open_)
        if self._owed and not self.pause.on:
            owed, self._owed = self._owed, 0
            self.ask_for(owed)

    def begin(self, step: int, flight: InFlight, stale: int) -> None:
        """Submit what is missing as `step` begins. `stale`: groups that came too late since the last."""
        if self.window is not None:
            self._submit(self.window.begin(step, flight, stale))

    def wait(self, step: int, flight: InFlight) -> None:
        """While the trainer waits, submit others for groups that have ended, and more if that helps."""
        if self.pause.on:
            if self.pause.probes(flight.open):
                self._owed = max(0, self._owed - 1)
                self.ask_for(1)
            return
        if self.window is None:
            return
        if (seen := self.lookout.look()) is not None:
            self._writing, pressed = seen
            flight = replace(flight, writing=self._writing, pressed=pressed)
        self._submit(self.window.wait(step, flight))

    def metrics(self, flight: InFlight, sampled: int) -> dict[str, int]:
        """What is under way beside the `sampled` groups that are trained on now."""
        if self.window is None:
            return {}
        told = {
            "flight/window": self.window.size,
            "flight/ready": flight.ready - sampled,
            "flight/open": flight.open,
        }
        return told if self._writing is None else {**told, "flight/writing": self._writing}

    def _submit(self, prompts: int) -> None:
        if prompts and not self.pause.on:
            self.ask_for(prompts)
