"""Quantiles of measured durations, for every benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Quantiles of durations, in ms. All 0 where `n` is."""

    n: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """By the nearest rank: each quantile is a duration that was measured."""
        ordered = sorted(seconds)
        if not ordered:
            return cls()

        def rank(share: float) -> float:
            return 1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]

        return cls(len(ordered), rank(0.5), rank(0.9), rank(0.99), 1000 * ordered[-1])
