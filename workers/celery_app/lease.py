"""Renews the leases of this worker's claims, and requeues those of silent workers.

Invariants:
- Renewing runs in its own thread. Neither a busy event loop nor a shutdown that waits for a job lets a lease
  expire.
- A claim that this worker has lost is not renewed.
- Renewing stops when the job's time is over, so a worker that hangs loses the job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from workers.broker.claims import renew, requeue_expired
from workers.broker.keys import cancelled_key
from workers.broker.leases import beat_s, granted_s
from workers.celery_app import heartbeat, reporting
from workers.celery_app.claimer import LATE_S, Claimer
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)


class LeaseRenewer(threading.Thread):
    """Renews leases and the worker's heartbeat five times per lease, and waits for cancellations meanwhile.

    `on_cancelled` is called in this thread with the ids of cancelled requests that this worker holds.
    """

    def __init__(self, settings: QueueSettings, name: str, queues: Sequence[str], claimer: Claimer):
        super().__init__(name="leases", daemon=True)
        self.on_cancelled: Callable[[tuple[str, ...]], None] = lambda _: None
        self._settings = settings
        self._cancelled = cancelled_key(name)
        self._queues = tuple(queues)
        self._claimer = claimer
        self._renewing = threading.Lock()
        self._stopped = False
        self._lost: set[str] = set()  # delivery tags of claims that belong to another worker now
        self._redis = connect_redis(settings.url, POLL_TIMEOUT_S)

    def stop(self) -> None:
        """Renew no more. Returns when no renewal is in progress."""
        with self._renewing:
            self._stopped = True

    def run(self) -> None:
        every_s = beat_s(self._settings.lease_s)
        due = time.monotonic()
        while not self._stopped:
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + every_s
                    with self._renewing:
                        if not self._stopped:
                            self.renew()
                self._await_cancellation(max(0.01, min(POLL_TIMEOUT_S / 2, due - time.monotonic())))
            except (redis.RedisError, OSError) as error:
                logger.warning("leases not renewed: %s", error)
                time.sleep(min(every_s, 1.0))
            except Exception:  # of any kind: without this thread, every running job would be requeued
                logger.exception("leases not renewed")
                time.sleep(min(every_s, 1.0))

    def renew(self) -> None:
        """Renew all leases and the worker's heartbeat, then requeue what silent workers hold."""
        now = time.monotonic()
        held = self._claimer.held()
        self._lost &= held.keys()
        mine = {
            tag: one.claim for tag, one in held.items() if tag not in self._lost and now <= one.ends + LATE_S
        }
        found = renew(self._redis, list(mine.values()), granted_s(self._settings.lease_s))
        self._lost |= {tag for tag, one in mine.items() if one.request_id in found.lost}
        pipeline = self._redis.pipeline(transaction=False)
        heartbeat.renew(pipeline, self._settings, time.time() - found.now)
        reporting.renew(pipeline, self._settings.lease_s)
        pipeline.execute()
        if found.cancelled:
            self.on_cancelled(found.cancelled)
        for one in requeue_expired(self._redis, self._queues):
            logger.warning(
                "lease expired: requeued %s (%s), held by %s", one.request_id, one.queue, one.worker
            )

    def _await_cancellation(self, timeout_s: float) -> None:
        found: Any = self._redis.blpop([self._cancelled], timeout_s)
        if found is not None:
            self.on_cancelled((found[1].decode(),))
