"""Providers that are down now, for a poller. Blocking; one round trip.

Invariant: an outage counts while its circuit is not closed and the provider has failed since the first read,
within the last `FRESH_S`: a circuit stays open when no request calls its provider any more.
"""

from __future__ import annotations

from workers.broker.breakers import ProviderOutage, read_breakers

FRESH_S = 3600.0


class RecentOutages:
    """Reads outages from the Redis at `url`."""

    def __init__(self, url: str):
        self._url = url
        self._first_read: float | None = None  # by the clock of Redis

    def read(self) -> list[ProviderOutage]:
        """The longest outage first. Raises `redis.RedisError`."""
        breakers = read_breakers(self._url)
        self._first_read = breakers.now if self._first_read is None else self._first_read
        since = max(self._first_read, breakers.now - FRESH_S)
        return [outage for outage in breakers.outages if outage.failed >= since]
