"""Renews the leases of this worker's claims, and requeues those of silent workers.

Invariants:
- Renewing runs in its own thread. Neither a busy event loop nor a shutdown that waits for a job lets a lease
  expire.
- A claim that this worker has lost is not renewed.
- Leases that expired while Redis refused or was away are not requeued before their workers could renew them.
- Renewing stops when the job's time is over, so a worker that hangs loses the job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from workers import jobs
from workers.broker.claims import renew, requeue_expired
from workers.broker.keys import cancelled_key
from workers.broker.leases import beat_s, granted_s
from workers.celery_app import heartbeat, reporting
from workers.celery_app.delivery.claimer import Claimer
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)


class LeaseRenewer(threading.Thread):
    """Renews leases and the worker's heartbeat five times per lease, and waits for cancellations meanwhile.

    `on_cancelled` is called in this thread with the delivery tags of cancelled requests of this worker, each
    once.
    """

    def __init__(self, settings: QueueSettings, name: str, queues: Sequence[str], claimer: Claimer):
        super().__init__(name="leases", daemon=True)
        self.on_cancelled: Callable[[set[str]], None] = lambda _: None
        self._settings = settings
        self._notices = cancelled_key(name)
        self._queues = tuple(queues)
        self._claimer = claimer
        self._renewing = threading.Lock()
        self._stopped = False
        self._keeps_model = jobs.keeps_model(queues)
        self._lost: set[str] = set()  # delivery tags of claims that belong to another worker now
        self._cancelled: set[str] = set()  # delivery tags that `on_cancelled` got
        self._sweep_at = 0.0  # monotonic seconds
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
                self._wait(f"leases not renewed: {error}")
            except Exception:  # of any kind: without this thread, every running job would be requeued
                logger.exception("leases not renewed")
                self._wait("")

    def _wait(self, why: str) -> None:
        """Pause after a failure. Other workers may have failed to renew too, so they get a lease of time."""
        if why:
            logger.warning(why)
        self._sweep_at = time.monotonic() + granted_s(self._settings.lease_s)
        time.sleep(min(beat_s(self._settings.lease_s), 1.0))

    def renew(self) -> None:
        """Renew all leases and the worker's heartbeat, then requeue what silent workers hold."""
        now = time.monotonic()
        held = self._claimer.held()
        self._lost &= held.keys()
        self._cancelled &= held.keys()
        mine = [
            one.claim
            for tag, one in held.items()
            if tag not in self._lost and now <= one.renewed_until(self._keeps_model)
        ]
        found = renew(self._redis, mine, granted_s(self._settings.lease_s))
        self._lost |= {one.tag for one in found.lost}
        pipeline = self._redis.pipeline(transaction=False)
        heartbeat.renew(pipeline, self._settings, time.time() - found.now)
        reporting.renew(pipeline, self._settings.lease_s)
        pipeline.execute()
        self._notify({one.tag for one in found.cancelled})
        if now >= self._sweep_at:
            for one in requeue_expired(self._redis, self._queues):
                logger.warning(
                    "lease expired: requeued %s (%s), held by %s", one.request_id, one.queue, one.worker
                )

    def _await_cancellation(self, timeout_s: float) -> None:
        found: Any = self._redis.blpop([self._notices], timeout_s)
        if found is not None:
            self._notify({found[1].decode()})

    def _notify(self, tags: set[str]) -> None:
        """Pass on the tags that are new."""
        if new := tags - self._cancelled:
            self._cancelled |= new
            self.on_cancelled(new)
