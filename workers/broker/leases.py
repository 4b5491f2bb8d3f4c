"""Timing of leases: how often workers renew them, and when one has expired."""

from __future__ import annotations

BEATS_PER_LEASE = 5


def beat_s(lease_s: float) -> float:
    """Seconds between renewals, and between sweeps for expired leases."""
    return lease_s / BEATS_PER_LEASE


def visible_after_s(lease_s: float) -> float:
    """Age in seconds at which a sweep requeues a delivery. Age plus the wait for the next sweep stay within
    the lease.
    """
    return lease_s - beat_s(lease_s)
