"""The critical path of a rollout: what it waited for from its start to its score, from the ledger. Pure.

The path is found backwards. A score waits for the request that ended last, an image judge for the tool that
ended last, an edit for the image that it changes, and all of them for the text.

Invariants: the spans are ordered, without gap or overlap, and reach from the rollout's start to its end;
every cause is one of `CAUSES`, some with the kind of a request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from coordinator.watch.idle.spans import Span
from policy.ledger.records import RequestRecord, RolloutRecord
from rewards.judges import IMAGE_KIND, TEXT_KIND
from workers.errors import Cause, Fault

GENERATION, BOOKKEEPING = "generation", "bookkeeping"
QUEUE, RUNNING, PENDING, DELIVERY = "queue", "running", "pending", "delivery"
REFILL, NOT_ADMITTED, WEIGHT_SYNC, UNEXPLAINED = "refill", "not admitted", "weight sync", "unexplained"
PAUSED = "paused"
CAUSES: dict[str, str] = {
    GENERATION: "its text is generated",
    QUEUE: "a request waits for a worker (with its kind)",
    RUNNING: "a worker runs the request (with its kind)",
    PENDING: "the request has no outcome, or one that no worker stored (with its kind)",
    DELIVERY: "the outcome is delivered from the worker (with its kind)",
    BOOKKEEPING: "parsing, posting, collecting: the time between the others",
    REFILL: "a group that replaces a discarded one is started and generated",
    NOT_ADMITTED: "no rollout is in flight, or the awaited one had not started",
    PAUSED: "not admitted, because admission is paused while a provider is down",
    WEIGHT_SYNC: "weights are sent to the generator",
    UNEXPLAINED: "the ledger does not say what the trainer waited for",
}


def end_of(rollout: RolloutRecord) -> float:
    """When the rollout was scored, else when it reached its terminal state; infinite before."""
    return max(rollout.started, rollout.scored or rollout.ended or math.inf)


def writing(rollout: RolloutRecord, now: float) -> list[tuple[float, float]]:
    """When its text was generated. Segments are recorded when the text is complete; until then the whole time
    counts."""
    if rollout.segments:
        return [(began, ended) for began, ended in rollout.segments if began < ended]
    return [(rollout.started, min(rollout.generated or math.inf, end_of(rollout), now))]


def critical_path(rollout: RolloutRecord, requests: Sequence[RequestRecord], now: float) -> list[Span]:
    """Return the spans from the rollout's start to its end, or to `now` while it goes on."""
    walk = _Walk(rollout.started, min(end_of(rollout), now))
    record = None
    if rollout.generated or end_of(rollout) < math.inf:  # before that its last request is not known
        record = _last(_awaited(requests), walk.at)
    if record is not None and _ended(record) < rollout.generated:
        record = None
    while record is not None and record.posted < walk.at:
        walk.through(record)
        before = _last(_needed(record, requests), walk.at)
        # It was posted when the last of these was there: the outcome that it needs, or the text.
        record = before if before and _ended(before) >= _text(rollout, record, walk.at) else None
    for began, ended in reversed(writing(rollout, now)):
        walk.back(BOOKKEEPING, ended)
        walk.back(GENERATION, began)
    walk.back(BOOKKEEPING, rollout.started)
    return walk.spans[::-1]


class _Walk:
    """Walks back in time from `at` to `start`, and collects the spans on the way."""

    def __init__(self, start: float, at: float):
        self._start = start
        self.at = at
        self.spans: list[Span] = []

    def back(self, cause: str, to: float, request_id: str = "") -> None:
        to = max(to, self._start)
        if to < self.at:
            self.spans.append(Span(cause, to, self.at, request_id))
            self.at = to

    def through(self, record: RequestRecord) -> None:
        kind, name, outcome = record.request.kind, record.request.request_id, record.outcome
        self.back(BOOKKEEPING, _ended(record))
        if outcome is not None and outcome.started and outcome.finished:
            self.back(f"{DELIVERY} {kind}", max(outcome.finished, record.posted), name)
            self.back(f"{RUNNING} {kind}", max(outcome.started, record.posted), name)
            self.back(f"{QUEUE} {kind}", record.posted, name)
        else:
            self.back(f"{PENDING} {kind}", record.posted, name)


def _ended(record: RequestRecord) -> float:
    return record.ended if record.outcome is not None else math.inf


def _last(records: Sequence[RequestRecord], at: float) -> RequestRecord | None:
    """The request that ended last, as seen at `at`; the oldest of those that had not ended."""
    known = [record for record in records if record.posted < at]
    return max(known, key=lambda record: (min(_ended(record), at), -record.posted), default=None)


def _awaited(requests: Sequence[RequestRecord]) -> list[RequestRecord]:
    """The requests that its score may have waited for: an infrastructure failure cancels the open ones."""
    causes = [record.failure.cause if record.failure else None for record in requests]
    if any(
        cause and cause is not Cause.CANCELLED and cause.fault is Fault.INFRASTRUCTURE for cause in causes
    ):
        return [r for r, cause in zip(requests, causes, strict=True) if cause is not Cause.CANCELLED]
    return list(requests)


def _needed(record: RequestRecord, requests: Sequence[RequestRecord]) -> list[RequestRecord]:
    """The requests that had to end before this one could be posted."""
    kind = record.request.kind
    earlier = [other for other in requests if other.posted < record.posted and _ended(other) < math.inf]
    if kind == IMAGE_KIND:
        return [other for other in earlier if other.request.kind not in (TEXT_KIND, IMAGE_KIND)]
    image = record.request.payload.get("image")
    if isinstance(image, dict):  # of a tool that changes an image
        return [other for other in earlier if image.get("sha256") in {one.sha256 for one in other.images}]
    return []


def _text(rollout: RolloutRecord, record: RequestRecord, at: float) -> float:
    """When the text of a request that was posted at `at` was complete."""
    if record.request.kind in (TEXT_KIND, IMAGE_KIND):
        return rollout.generated
    return max((ended for _, ended in rollout.segments if ended <= at), default=rollout.started)
