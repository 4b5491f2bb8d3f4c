"""Holds admission while a provider is down, as `policy.admission.outage` decides, and tells the ledger who is
to blame.

Invariants: Redis is asked at most every `LOOK_S`, and one that is away neither begins nor ends a pause; which
providers count says `workers.broker.outages`; each pause is two lines of the ledger.
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
LOOK_S = 1.0


class Pause:
    """For one sampler. `spent_s`: how long it has held admission since it was last set to zero."""

    def __init__(self, outage: Outage, queue: QueueSettings, ledger: LedgerWriter):
        self._outage = outage
        self._outages = RecentOutages(queue.url)
        self._ledger = ledger
        self._looked = 0.0
        self._down: list[ProviderOutage] | None = None
        self._seen: AbstractSet[str] = frozenset()
        self._before: AbstractSet[str] = frozenset()  # groups that were asked for before it began
        self.on = False
        self.spent_s = 0.0

    @property
    def excuses(self) -> bool:
        """Whether a group without enough votes now has a provider to blame."""
        return self.on or bool(self._down)

    def look(self, *, usable: AbstractSet[str], unusable: AbstractSet[str], open_: AbstractSet[str]) -> None:
        """Look at the groups that have ended and have not gone yet, and at the providers every so often."""
        for uid in (usable | unusable) - self._seen:
            self._outage.ended(uid in usable, asked_since=uid not in self._before)
        self._seen = usable | unusable
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            if self.on:
                self.spent_s += now - self._looked
            self._looked, self._down = now, self._ask()
        was, self.on = self.on, self._outage.look(now, None if self._down is None else bool(self._down))
        if self.on and not was:
            self._before = self._seen | open_
            blamed = self._down or []
            told = tuple(str(down) for down in blamed)
            self._ledger.paused(told, since=min((down.since for down in blamed), default=0.0))
            logger.warning("paused: %s", "; ".join(told))
        elif was and not self.on:
            self._ledger.pause_ended()
            logger.warning("going on")

    def probes(self, open_groups: int) -> bool:
        """Whether to ask for one group now, though it pauses."""
        return self._outage.probe(time.monotonic(), open_groups)

    def _ask(self) -> list[ProviderOutage] | None:
        try:
            return self._outages.read()
        except (redis.RedisError, OSError) as error:
            logger.debug("no look at the breakers: %s", error)
            return None
