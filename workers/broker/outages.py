"""Which providers are down, for somebody who asks now and then. Blocking; one round trip.

Invariant: a provider counts while its breaker is not closed and it has failed since the first look, in the
last `FRESH_S`: a breaker stays open when nobody asks its provider any more.
"""

from __future__ import annotations

from workers.broker.breakers import ProviderOutage, read_breakers

FRESH_S = 3600.0


class RecentOutages:
    """On the Redis at `url`."""

    def __init__(self, url: str):
        self._url = url
        self._born: float | None = None  # by Redis' clock

    def read(self) -> list[ProviderOutage]:
        """The longest first. Raises `redis.RedisError`."""
        breakers = read_breakers(self._url)
        self._born = breakers.now if self._born is None else self._born
        since = max(self._born, breakers.now - FRESH_S)
        return [down for down in breakers.outages if down.failed >= since]
