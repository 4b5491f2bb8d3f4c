"""Spans of time with a cause, and intervals without one: cut, merge and add them. Times are Unix seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Span:
    """A wait for `cause` from `began` to `ended` (Unix seconds). `request_id`: of the awaited request."""

    cause: str
    began: float
    ended: float
    request_id: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def totals(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds by cause, the largest first."""
    seconds: dict[str, float] = defaultdict(float)
    for span in spans:
        seconds[span.cause] += span.seconds
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by cause, rounded to milliseconds."""
    return {cause: round(value, 3) for cause, value in seconds.items()}


def merged(intervals: Iterable[Interval], low: float, high: float) -> list[Interval]:
    """The union of intervals between `low` and `high`, ordered and disjoint."""
    found: list[Interval] = []
    for began, ended in sorted(intervals):
        began, ended = max(began, low), min(ended, high)
        if began >= ended:
            continue
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ended)
        else:
            found.append((began, ended))
    return found


def gaps(covered: Sequence[Interval], low: float, high: float) -> list[Interval]:
    """The parts between `low` and `high` that `covered` (ordered, disjoint) leaves."""
    edges = [low, *(edge for interval in covered for edge in interval), high]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def within(spans: Iterable[Span], low: float, high: float) -> list[Span]:
    """The parts of the spans between `low` and `high`."""
    cut = (Span(s.cause, max(s.began, low), min(s.ended, high), s.request_id) for s in spans)
    return [span for span in cut if span.began < span.ended]
