"""Tells the live view where a request is that the trainer waits for.

Invariant: Redis is asked every `EVERY_S` at most, and one that is away makes no more than a silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.progress import Progress
from coordinator.status import told, whereabouts
from workers.settings import QueueSettings

EVERY_S = 5.0


class Lookout:
    """`queue` gives the run's queue once there is one."""

    def __init__(self, progress: Progress, queue: Callable[[], QueueSettings | None]):
        self._progress = progress
        self._queue = queue
        self._seen: tuple[str, float, str] = ("", 0.0, "")

    def words(self, request_id: str) -> str:
        """Where it is; empty when nobody can tell."""
        known, at, words = self._seen
        if known == request_id and time.monotonic() - at < EVERY_S:
            return words
        words = self._ask(request_id)
        self._seen = request_id, time.monotonic(), words
        return words

    def _ask(self, request_id: str) -> str:
        record, queue = self._progress.watch.request(request_id), self._queue()
        if record is None or queue is None:
            return ""
        where = whereabouts(queue.url, queue, record)
        kind = record.request.kind
        return told(where, self._progress.watch.median_s(kind), queue.lease_s) if where else ""
