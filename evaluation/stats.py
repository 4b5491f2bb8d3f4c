"""Means over what was judged, with a bootstrap interval. Pure functions.

Invariants: every mean states how many points it is over, of how many; without a point there is no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95


@dataclass(frozen=True)
class Mean:
    """`value`: None when nothing was judged; `low`, `high`: the interval, for at least two items."""

    value: float | None
    judged: int
    of: int
    low: float | None = None
    high: float | None = None


def mean(points: Sequence[float], of: int) -> Mean:
    """The mean of `points`, which are so many of `of`."""
    return Mean(sum(points) / len(points) if points else None, len(points), of)


def overall(items: Sequence[Sequence[float]], of: int) -> Mean:
    """The mean over all points of all items, with a bootstrap interval.

    Percentile bootstrap over items (10,000 resamples, seed 0, 95 %). Items are resampled and not points,
    since the points of an item share its document.
    """
    plain = mean([point for points in items for point in points], of)
    sums = np.array([sum(points) for points in items if points], dtype=float)
    counts = np.array([len(points) for points in items if points], dtype=float)
    if len(sums) < 2:
        return plain
    drawn = np.random.default_rng(SEED).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    ends = [float(np.quantile(means, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    return Mean(plain.value, plain.judged, plain.of, ends[0], ends[1])
