"""Means of the numbers of documents (`policy.rollout.reward_info`). Pure; imports no library."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping


def means(documents: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number with a "/" over the documents that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for numbers in documents:
        for name, value in numbers.items():
            if "/" in name:
                values[name].append(value)
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}
