"""When a run stops asking for rollouts because a provider is down, and when it goes on. Pure.

It pauses once more than `share` of the last groups were unusable, for `for_s` on end, while a provider is
known to be down: what is written then would be thrown away. It goes on when no provider is down any more, or
when a group that was asked for since is usable. Meanwhile one group at a time is asked for, at most every
`probe_s`, so that somebody asks the provider at all. Invariants: without a provider to blame it never pauses
(the groups have another fault, which does not pass by waiting); what is not known, because Redis does not
answer, changes nothing.
"""

from __future__ import annotations

import math
from collections import deque


class Outage:
    """`recent`: of how many groups the share is taken. Times in seconds of a clock that never goes back."""

    def __init__(self, *, share: float, for_s: float, probe_s: float, recent: int):
        self._share = share
        self._for_s = for_s
        self._probe_s = probe_s
        self._recent: deque[bool] = deque(maxlen=recent)  # whether each was usable
        self._bad_since = math.inf
        self._probed = -math.inf
        self._proved = False
        self.since: float | None = None  # it pauses since then; None: it does not

    @property
    def unusable(self) -> float:
        """The share of the last groups that could not be trained on."""
        return self._recent.count(False) / len(self._recent) if self._recent else 0.0

    def ended(self, usable: bool, *, asked_since: bool) -> None:
        """A group has ended. `asked_since`: it was asked for after the pause began."""
        self._recent.append(usable)
        self._proved |= usable and asked_since and self.since is not None

    def look(self, now: float, down: bool | None) -> bool:
        """Whether to pause from `now` on. `down`: whether a provider is, None when nobody can tell."""
        if self.since is not None:
            if down is False or self._proved:
                self._go_on()
        elif self.unusable <= self._share:
            self._bad_since = math.inf
        else:
            self._bad_since = min(self._bad_since, now)
            if down and now - self._bad_since >= self._for_s:
                self.since = self._probed = now
        return self.since is not None

    def probe(self, now: float, open_groups: int) -> bool:
        """Whether to ask for one group at `now`, while `open_groups` have not ended."""
        if self.since is None or open_groups or now - self._probed < self._probe_s:
            return False
        self._probed = now
        return True

    def _go_on(self) -> None:
        self.since, self._proved, self._bad_since = None, False, math.inf
        self._recent.clear()
