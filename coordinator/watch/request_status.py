"""Describe the state of a request, so that slow and stuck requests look different.

Invariants: the live view makes at most one query of Redis every `EVERY_S`; a Redis that does not answer gives
an empty description.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from coordinator.watch.progress import Progress
from policy.ledger.records import RequestRecord
from workers.broker.breakers import read_breakers
from workers.broker.request_status import RequestStatus, find_request
from workers.settings import QueueSettings

EVERY_S = 5.0
SLOW = 2.0  # times the median of its kind
Queue = tuple[str, QueueSettings]  # with the URL under which its Redis is reached


class RequestStatusPoller:
    """Describes requests of a run. `queue`: returns the run's queue, None before it exists."""

    def __init__(self, progress: Progress, queue: Callable[[], Queue | None]):
        self._progress = progress
        self._queue = queue
        self._seen: tuple[str, float, str] = ("", -EVERY_S, "")

    def describe(self, request_id: str) -> str:
        """Describe the request; empty when its state is unknown."""
        known, at, text = self._seen
        if time.monotonic() - at < EVERY_S:
            return text if known == request_id else ""
        text = self._query(request_id)
        self._seen = request_id, time.monotonic(), text
        return text

    def _query(self, request_id: str) -> str:
        record, queue = self._progress.idle_tracker.request(request_id), self._queue()
        if record is None or queue is None:
            return ""
        url, settings = queue
        where = request_status(url, settings, record)
        kind = record.request.kind
        if where is None:
            return ""
        return describe(
            where, self._progress.idle_tracker.median_s(kind), settings.lease_s, open_circuit(url, kind)
        )


def open_circuit(url: str, kind: str) -> str:
    """Describe the provider of `kind` with an open circuit; empty without one."""
    try:
        outages = read_breakers(url).outages if url else []
    except redis.RedisError:
        return ""
    return next((str(outage) for outage in outages if outage.kind == kind), "")


def describe(where: RequestStatus | None, median_s: float | None, lease_s: float, down: str = "") -> str:
    """Describe a status; None: Redis does not answer.

    `median_s`: median service time of its kind; `down`: its provider, if the circuit is open.
    """
    if where is None:
        return "no outcome yet, and Redis does not answer"
    match where.state:
        case "waiting" if down:
            return f"queued; circuit open: {down}"
        case "waiting":
            ahead = f"{where.before} ahead" if where.before else "next"
            return f"queued ({ahead}, {_workers(where.workers)})"
        case "running":
            usual = f"the median of its kind is {median_s:.1f} s" if median_s is not None else ""
            slow = "slow: " if median_s is not None and where.for_s > SLOW * median_s else ""
            note = f" ({slow}{usual})" if usual else ""
            return f"running for {where.for_s:.0f} s{note}"
        case "silent":
            return f"stuck: lease not renewed for {where.for_s:.0f} s (it expires after {lease_s:.0f} s)"
        case "unserved" if where.loading:
            return f"queued: {_workers(where.loading)} {'is' if where.loading == 1 else 'are'} loading"
        case "unserved":
            return "stuck: no worker serves this queue"
        case "unknown":
            return "stuck: Redis has lost it; its client reposts it within seconds"
        case "quarantined":
            return "quarantined: it ended its worker too often"
        case _:
            return "done: its outcome is being delivered"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def request_status(url: str, queue: QueueSettings, record: RequestRecord) -> RequestStatus | None:
    """Query the status of a request; None when `url` is empty or its Redis does not answer."""
    if not url:
        return None
    try:
        return find_request(url, queue, record.request.request_id, record.request.kind)
    except redis.RedisError:
        return None
