"""Leases on messages: a worker renews those of its running jobs, and requeues those that have expired.

A lease is the score of a delivery in kombu's `unacked_index`, in Unix seconds.

Invariants:
- Renewing never restores a delivery that was acknowledged.
- Renewing runs in its own thread. Neither a busy event loop nor a shutdown that waits for a job lets a lease
  expire.
- Renewing stops when the job's time is over, so a worker that hangs loses the job.
- A message that no pool process has started is not renewed: when the connection to Redis is lost, Celery
  drops such messages and relies on the broker to deliver them again. Its lease is the time at which it
  arrived.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from celery import signals

from workers.broker.keys import UNACKED_INDEX
from workers.broker.leases import beat_s
from workers.celery_app import heartbeat, reporting
from workers.celery_app.request import keeps_model
from workers.celery_app.timer_step import TimerStep
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
GRACE_S = 5.0  # how long a job may run over its time before it is killed or its lease expires


class LeaseRenewer(threading.Thread):
    """Renews the leases of all requests that run in this worker, and sends its heartbeat."""

    def __init__(self, settings: QueueSettings):
        super().__init__(name="leases", daemon=True)
        self._settings = settings
        self._renewing = threading.Lock()
        self._stopped = False
        self._held: dict[str, Any] = {}  # delivery tag -> Celery's request
        self._redis = connect_redis(settings.url, POLL_TIMEOUT_S)

    def add(self, request: Any) -> None:
        self._held[request.message.delivery_tag] = request

    def stop(self) -> None:
        """Renew no more. Returns when no renewal is in progress."""
        with self._renewing:
            self._stopped = True

    def run(self) -> None:
        while not self._stopped:
            try:
                with self._renewing:
                    if not self._stopped:
                        self.renew()
            except (redis.RedisError, OSError) as error:
                logger.warning("leases not renewed: %s", error)
            except Exception:  # of any kind: without this thread, every running job would be requeued
                logger.exception("leases not renewed")
            time.sleep(beat_s(self._settings.lease_s))

    def renew(self) -> None:
        """Renew all leases, the worker's heartbeat and its listed metrics endpoint in one round trip."""
        now = time.time()
        for tag, request in list(self._held.items()):
            if request.acknowledged or now > must_end_by(request, request.time_start) + GRACE_S:
                del self._held[tag]
        renewed = [tag for tag, request in list(self._held.items()) if request.time_start is not None]
        pipeline = self._redis.pipeline(transaction=False)
        if renewed:
            pipeline.zadd(UNACKED_INDEX, dict.fromkeys(renewed, now), xx=True)
        heartbeat.renew(pipeline, self._settings)
        reporting.renew(pipeline, self._settings.lease_s)
        pipeline.execute()


class LeaseSweep(TimerStep):
    """Requeues deliveries with expired leases. kombu does so too, but only every 100 s."""

    def start(self, consumer: Any) -> None:
        every_s = beat_s(section("queue", QueueSettings).lease_s)
        self.repeat(consumer, every_s, self._sweep, consumer)

    @staticmethod
    def _sweep(consumer: Any) -> None:
        if consumer.task_consumer is not None:
            consumer.task_consumer.channel.qos.restore_visible(num=None, interval=1)


def must_end_by(request: Any, started: float | None) -> float:
    """When the job of a Celery request must end, in Unix seconds: the request's deadline or the job's time
    limit after `started` (None: not started), whichever comes first. Infinity for a message without
    either.
    """
    try:
        message = request.args[0]
        deadline, limit_s = float(message["deadline"]), message.get("limit_s")
        return deadline if started is None or limit_s is None else min(deadline, started + float(limit_s))
    except (AttributeError, LookupError, TypeError, ValueError):
        return float("inf")


def set_time_limit(request: Any) -> None:
    """Set Celery's hard time limit for a job that starts now. None where the process keeps a model."""
    if keeps_model(request.app):
        request.time_limits = (None, None)
        return
    now = time.time()
    remaining_s = must_end_by(request, now) + GRACE_S / 2 - now
    if remaining_s < 10**9:
        request.time_limits = (max(1.0, remaining_s), None)


def connect() -> None:
    """Connect to Celery's worker signals."""
    leases: list[LeaseRenewer] = []

    def start(**_: Any) -> None:
        leases.append(LeaseRenewer(section("queue", QueueSettings)))
        leases[0].start()

    def received(request: Any, **_: Any) -> None:
        set_time_limit(request)
        leases[0].add(request)

    def stopped(**_: Any) -> None:
        for one in leases:
            one.stop()

    signals.worker_ready.connect(start, weak=False)
    # Connected before `workers.celery_app.heartbeat`, which removes the worker's key.
    signals.worker_shutdown.connect(stopped, weak=False)
    signals.task_received.connect(received, weak=False)
