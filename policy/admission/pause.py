"""Pause admission while a provider is down, as `policy.admission.outage` decides, and record it in the
ledger.

Invariants:
- Redis is read at most once in `POLL_S`; without an answer a pause neither starts nor ends;
- `workers.broker.outages` decides which providers are down;
- each pause is two entries of the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet

import redis

from policy.admission.outage import Outage
from policy.ledger.writer import LedgerWriter
from workers.broker.breakers import ProviderOutage
from workers.broker.outages import RecentOutages
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
POLL_S = 1.0


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
