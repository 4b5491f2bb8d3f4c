"""Pause admission while a provider is down, and record it in the ledger.

`Outage` decides, without input or output. It pauses when a provider is down and more than `share` of the last
groups were unusable for `for_s` without a break: what is generated then would be dropped. It resumes when no
provider is down, or when a group submitted during the pause is usable. During the pause one probe group at a
time is submitted, at most one in `probe_s`, so that the provider is tried at all.

Invariants:
- it never pauses unless a provider is down: a pause does not help against other faults;
- Redis is read at most once in `POLL_S`; without an answer a pause neither starts nor ends;
- `workers.broker.outages` decides which providers are down;
- each pause is two entries of the ledger.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Set as AbstractSet

import redis

from policy.ledger.writer import LedgerWriter
from workers.broker.breakers import ProviderOutage
from workers.broker.outages import RecentOutages
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
POLL_S = 1.0


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


class Pause:
    """The pause of one sampler. `spent_s`: seconds spent paused since it was last set to zero."""

    def __init__(self, outage: Outage, queue: QueueSettings, ledger: LedgerWriter):
        self._outage = outage
        self._outages = RecentOutages(queue.url)
        self._ledger = ledger
        self._polled = 0.0
        self._down: list[ProviderOutage] | None = None
        self._seen: AbstractSet[str] = frozenset()
        self._before: AbstractSet[str] = frozenset()  # groups submitted before the pause
        self.on = False
        self.spent_s = 0.0

    @property
    def provider_down(self) -> bool:
        """Whether a provider outage explains a group with too few valid samples."""
        return self.on or bool(self._down)

    def update(
        self, *, usable: AbstractSet[str], unusable: AbstractSet[str], open_: AbstractSet[str]
    ) -> None:
        """Start or end the pause, by the ids of the groups in verl's buffer and by the providers."""
        for uid in (usable | unusable) - self._seen:
            self._outage.group_ended(uid in usable, in_pause=uid not in self._before)
        self._seen = usable | unusable
        now = time.monotonic()
        if now - self._polled >= POLL_S:
            if self.on:
                self.spent_s += now - self._polled
            self._polled, self._down = now, self._read()
        was, self.on = self.on, self._outage.update(now, None if self._down is None else bool(self._down))
        if self.on and not was:
            self._before = self._seen | open_
            down = self._down or []
            providers = tuple(map(str, down))
            self._ledger.paused(providers, since=min((outage.since for outage in down), default=0.0))
            logger.warning("paused: %s", "; ".join(providers))
        elif was and not self.on:
            self._ledger.pause_ended()
            logger.warning("pause ended")

    def should_probe(self, open_groups: int) -> bool:
        """Whether to submit a probe group now."""
        return self._outage.should_probe(time.monotonic(), open_groups)

    def _read(self) -> list[ProviderOutage] | None:
        try:
            return self._outages.read()
        except (redis.RedisError, OSError) as error:
            logger.debug("breakers not read: %s", error)
            return None
