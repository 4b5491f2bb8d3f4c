"""Spans of time with a cause, and intervals without: cut, merged and added up. Times are Unix seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Span:
    """From `began` to `ended` (Unix seconds) all waited for `cause`; `request_id`: of the request in it."""

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
    """To milliseconds, for people and files."""
    return {cause: round(value, 3) for cause, value in seconds.items()}


def merged(intervals: Iterable[Interval], low: float, high: float) -> list[Interval]:
    """What any of them covers between `low` and `high`, in order and apart."""
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
    """What lies between `covered`, which is in order and apart."""
    edges = [low, *(edge for interval in covered for edge in interval), high]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def within(spans: Iterable[Span], low: float, high: float) -> list[Span]:
    """What of them lies between `low` and `high`."""
    cut = (Span(s.cause, max(s.began, low), min(s.ended, high), s.request_id) for s in spans)
    return [span for span in cut if span.began < span.ended]
