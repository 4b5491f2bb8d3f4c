"""Leases on messages: a worker renews those it holds, and requeues those whose worker is silent.

A lease is kombu's score of a delivery in `unacked_index`. Invariants: renewal never brings back a delivery
that was acknowledged; it runs in its own thread, so neither a busy loop nor a shutdown that waits for a job
lets a lease expire; it ends when the job's time is over, so a worker that hangs gives its job up; what no
pool process has begun is not renewed, for Celery drops what waits for a process when its line to Redis
breaks, and trusts the broker to send it again: kombu's score, of when it came, is its lease.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from celery import bootsteps, signals

from workers.broker.keys import UNACKED_INDEX
from workers.broker.leases import beat_s
from workers.celery_app import heartbeat, reporting
from workers.celery_app.request import keeps_model
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
GRACE_S = 5.0  # a job may use this long after its time is over to end by itself


class LeaseRenewer(threading.Thread):
    """Renews the leases of every request that runs here."""

    def __init__(self, settings: QueueSettings):
        super().__init__(name="leases", daemon=True)
        self._settings = settings
        self._renewing = threading.Lock()
        self._stopped = False
        self._held: dict[str, Any] = {}  # delivery tag -> Celery's request
        self._redis = redis.Redis.from_url(settings.url, socket_timeout=2.0, socket_connect_timeout=2.0)

    def add(self, request: Any) -> None:
        self._held[request.message.delivery_tag] = request

    def stop(self) -> None:
        """Beat no more; returns when none is under way."""
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
            except Exception:  # of any kind: without this thread, every running job is given to another
                logger.exception("leases not renewed")
            time.sleep(beat_s(self._settings.lease_s))

    def renew(self) -> None:
        """Renew once, and say that this worker lives and where its metrics are."""
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


class LeaseSweep(bootsteps.StartStopStep):
    """Gives back deliveries whose lease ran out. kombu has the means, but looks only every 100 s."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any):
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        every_s = beat_s(section("queue", QueueSettings).lease_s)
        self._timer = consumer.timer.call_repeatedly(every_s, self._sweep, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _sweep(consumer: Any) -> None:
        if consumer.task_consumer is not None:
            consumer.task_consumer.channel.qos.restore_visible(num=None, interval=1)


def must_end_by(request: Any, started: float | None) -> float:
    """When the job of a Celery request must have ended, Unix seconds: a deadline counts from posting, what
    the job may run from its start (None: it has not started). Infinity when the message says neither.
    """
    try:
        message = request.args[0]
        deadline, limit_s = float(message["deadline"]), message.get("limit_s")
        return deadline if started is None or limit_s is None else min(deadline, started + float(limit_s))
    except (AttributeError, LookupError, TypeError, ValueError):
        return float("inf")


def set_time_limit(request: Any) -> None:
    """Make the hard limit what the job may run if it starts now; none where the process keeps a model."""
    if keeps_model(request.app):
        request.time_limits = (None, None)
        return
    now = time.time()
    remaining_s = must_end_by(request, now) + GRACE_S / 2 - now
    if remaining_s < 10**9:
        request.time_limits = (max(1.0, remaining_s), None)


def connect() -> None:
    """Hook into the worker: called once, where the app is made."""
    leases: list[LeaseRenewer] = []

    def start(**_: Any) -> None:
        leases.append(LeaseRenewer(section("queue", QueueSettings)))
        leases[0].start()

    def received(request: Any, **_: Any) -> None:
        set_time_limit(request)
        leases[0].add(request)

    def ended(**_: Any) -> None:
        for one in leases:
            one.stop()

    signals.worker_ready.connect(start, weak=False)
    signals.worker_shutdown.connect(
        ended, weak=False
    )  # before `workers.celery_app.heartbeat` takes its leave
    signals.task_received.connect(received, weak=False)
