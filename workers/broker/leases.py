"""Timing of leases: how often workers renew them, and when one has expired."""

from __future__ import annotations

BEATS_PER_LEASE = 5


def beat_s(lease_s: float) -> float:
    """Seconds between renewals, and between sweeps for expired leases."""
    return lease_s / BEATS_PER_LEASE


def granted_s(lease_s: float) -> float:
    """Seconds for which Redis grants a lease. With the wait for the next sweep it stays within `lease_s`."""
    return lease_s - beat_s(lease_s)
