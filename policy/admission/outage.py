"""Decide when a run pauses because a provider is down, and when it resumes. Pure functions, no I/O.

It pauses when a provider is down and more than `share` of the last groups were unusable for `for_s` without a
break: what is generated then would be dropped. It resumes when no provider is down, or when a group submitted
during the pause is usable. During the pause one probe group at a time is submitted, at most one in `probe_s`,
so that the provider is tried at all.

Invariants: it never pauses unless a provider is down (a pause does not help against other faults); an unknown
state, because Redis does not answer, changes nothing.
"""

from __future__ import annotations

import math
from collections import deque


class Outage:
    """`recent`: number of last groups in the share. Times are seconds of a monotonic clock."""

    def __init__(self, *, share: float, for_s: float, probe_s: float, recent: int):
        self._share = share
        self._for_s = for_s
        self._probe_s = probe_s
        self._recent: deque[bool] = deque(maxlen=recent)  # whether each group was usable
        self._bad_since = math.inf
        self._probed = -math.inf
        self._probe_succeeded = False
        self.since: float | None = None  # start of the pause; None: no pause

    @property
    def unusable(self) -> float:
        """The share of the last groups that could not be trained on."""
        return self._recent.count(False) / len(self._recent) if self._recent else 0.0

    def group_ended(self, usable: bool, *, in_pause: bool) -> None:
        """Record a group that has ended. `in_pause`: it was submitted after the pause started."""
        self._recent.append(usable)
        self._probe_succeeded |= usable and in_pause and self.since is not None

    def update(self, now: float, down: bool | None) -> bool:
        """Whether to pause from `now` on. `down`: whether a provider is down, None if unknown."""
        if self.since is not None:
            if down is False or self._probe_succeeded:
                self._end()
        elif self.unusable <= self._share:
            self._bad_since = math.inf
        else:
            self._bad_since = min(self._bad_since, now)
            if down and now - self._bad_since >= self._for_s:
                self.since = self._probed = now
        return self.since is not None

    def should_probe(self, now: float, open_groups: int) -> bool:
        """Whether to submit a probe group at `now`, while `open_groups` have not ended."""
        if self.since is None or open_groups or now - self._probed < self._probe_s:
            return False
        self._probed = now
        return True

    def _end(self) -> None:
        self.since, self._probe_succeeded, self._bad_since = None, False, math.inf
        self._recent.clear()
