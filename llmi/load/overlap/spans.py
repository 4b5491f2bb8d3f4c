"""Spans of time: how much of a window they cover, how many run at once, and which lane to draw each in.

Invariants: pure; a span that ends before it begins, or where it begins, covers nothing; spans in one lane
never overlap, and there are no more lanes than spans that run at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from coordinator.watch.idle.spans import merged
from policy.ledger.entries import Span


def clipped(spans: Iterable[Span], window: Span) -> list[Span]:
    """The part of each span within `window`; spans outside are left out."""
    inside = ((max(began, window[0]), min(ended, window[1])) for began, ended in spans)
    return [(began, ended) for began, ended in inside if began < ended]


def covered_s(spans: Iterable[Span], window: Span) -> float:
    """Seconds of `window` in which at least one span runs."""
    total = sum(ended - began for began, ended in merged(spans, *window))
    return min(total, max(0.0, window[1] - window[0]))  # a sum of parts may exceed the whole by a rounding


def lanes(spans: Sequence[Span]) -> list[int]:
    """A lane from 0 for each span, in the order given: the lowest that is free when it begins."""
    placed = [0] * len(spans)
    running: list[tuple[float, int]] = []  # (ends, lane)
    free: list[int] = []
    for place in sorted(range(len(spans)), key=lambda index: spans[index]):
        began, ended = spans[place]
        while running and running[0][0] <= began:
            heapq.heappush(free, heapq.heappop(running)[1])
        placed[place] = heapq.heappop(free) if free else len(running)
        heapq.heappush(running, (ended, placed[place]))
    return placed


def running(spans: Iterable[Span], window: Span) -> tuple[list[float], list[int]]:
    """How many run at once: times, rising, and the number from each on. Begins and ends with `window`."""
    changes: dict[float, int] = {window[0]: 0, window[1]: 0}
    for began, ended in clipped(spans, window):
        changes[began] = changes.get(began, 0) + 1
        changes[ended] = changes.get(ended, 0) - 1
    times, counts, count = sorted(changes), [], 0
    for time in times:
        count += changes[time]
        counts.append(count)
    return times, counts
