"""Tells in words where a request is, so that what is slow and what is stuck look different.

Invariant: however often the live view asks, Redis is asked every `EVERY_S` at most, and one that is away
makes no more than a silence.
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
    """`queue` gives the run's queue once there is one."""

    def __init__(self, progress: Progress, queue: Callable[[], Queue | None]):
        self._progress = progress
        self._queue = queue
        self._seen: tuple[str, float, str] = ("", -EVERY_S, "")

    def words(self, request_id: str) -> str:
        """Where it is; empty when nobody can tell."""
        known, at, words = self._seen
        if time.monotonic() - at < EVERY_S:
            return words if known == request_id else ""
        words = self._ask(request_id)
        self._seen = request_id, time.monotonic(), words
        return words

    def _ask(self, request_id: str) -> str:
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
    """In words, the provider of `kind` that workers leave alone; empty when there is none."""
    try:
        outages = read_breakers(url).outages if url else []
    except redis.RedisError:
        return ""
    return next((str(outage) for outage in outages if outage.kind == kind), "")


def describe(where: RequestStatus | None, median_s: float | None, lease_s: float, down: str = "") -> str:
    """A request's request_status in words; None: Redis does not answer. `median_s` of its kind's service;
    `down`: its provider, if that is left alone.
    """
    if where is None:
        return "no outcome yet, and Redis does not answer"
    match where.state:
        case "waiting" if down:
            return f"waiting for its provider: {down}"
        case "waiting":
            ahead = f"{where.before} before it" if where.before else "the next in line"
            return f"waiting for a slot ({ahead}, {_workers(where.workers)})"
        case "running":
            usual = f"median of its kind is {median_s:.1f} s" if median_s is not None else ""
            slow = "slow: " if median_s is not None and where.for_s > SLOW * median_s else ""
            note = f" ({slow}{usual})" if usual else ""
            return f"running for {where.for_s:.0f} s on a live worker{note}"
        case "silent":
            return f"stuck: its worker has been silent for {where.for_s:.0f} s (lease: {lease_s:.0f} s)"
        case "unserved" if where.loading:
            return f"waiting for {_workers(where.loading)} to be loaded"
        case "unserved":
            return "stuck: nobody serves this queue"
        case "missing":
            return f"stuck: a worker took it and fell silent; it is posted again within {lease_s:.0f} s"
        case _:
            return "done: its outcome is on the way"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def request_status(url: str, queue: QueueSettings, record: RequestRecord) -> RequestStatus | None:
    """Where a request is; None when the Redis at `url` does not answer, or none is named."""
    if not url:
        return None
    try:
        return find_request(url, queue, record.request.request_id, record.request.kind)
    except redis.RedisError:
        return None
