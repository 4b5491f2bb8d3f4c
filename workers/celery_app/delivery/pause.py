"""Pauses consuming a queue while the circuit breaker of its provider is open.

Requests then wait in Redis. A slot that waited for the provider would be missing for the worker's other
queues.

Invariants:
- A queue is paused only while its breaker is open or a trial request runs (half-open).
- With `while_open: mask`, and while Redis does not answer, every queue is consumed.
- Celery's event loop never blocks: a thread polls the breakers, a timer of the loop passes the result on.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis

from workers.broker.breakers import fetch_breakers
from workers.celery_app.delivery.consumer import ClaimStep
from workers.celery_app.timer_step import TimerStep
from workers.jobs import JOBS, provider_of
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
POLL_S = 0.25


class BreakerWatch(threading.Thread):
    """Polls the breakers of `providers` (provider by queue). `paused` holds the queues not to consume."""

    def __init__(self, settings: QueueSettings, providers: dict[str, str]):
        super().__init__(name="breakers", daemon=True)
        self._redis = connect_redis(settings.url, POLL_TIMEOUT_S)
        self._providers = providers
        self.paused: frozenset[str] = frozenset()

    def run(self) -> None:
        while True:
            try:
                breakers = fetch_breakers(self._redis)
                self.paused = frozenset(
                    kind for kind, name in self._providers.items() if not breakers.admits(kind, name)
                )
            except (redis.RedisError, OSError) as error:
                logger.debug("circuit breakers could not be read: %s", error)
                self.paused = frozenset()
            except Exception:  # of any kind: without this thread, a paused queue would stay paused
                logger.exception("circuit breakers could not be read")
                self.paused = frozenset()
            time.sleep(POLL_S)


class PauseQueues(TimerStep):
    """Passes what `BreakerWatch` found to the claimer."""

    _watch: BreakerWatch | None = None  # one for the life of the worker, across reconnections
    _applied: frozenset[str] = frozenset()

    def start(self, consumer: Any) -> None:
        settings = section("queue", QueueSettings)
        served = [kind for kind in consumer.app.amqp.queues.consume_from if kind in JOBS]
        providers = {kind: name for kind in served if (name := provider_of(kind))}
        if not providers or settings.breaker.while_open == "mask":
            return
        if PauseQueues._watch is None:
            PauseQueues._watch = BreakerWatch(settings, providers)
            PauseQueues._watch.start()
        self.repeat(consumer, POLL_S, self._apply)

    @staticmethod
    def _apply() -> None:
        watch, claimer = PauseQueues._watch, ClaimStep.claimer
        if watch is None or claimer is None or watch.paused == PauseQueues._applied:
            return
        for kind in watch.paused - PauseQueues._applied:
            logger.warning("circuit open: paused the queue %s", kind)
        for kind in PauseQueues._applied - watch.paused:
            logger.warning("circuit closed or half-open: resumed the queue %s", kind)
        PauseQueues._applied = watch.paused
        claimer.pause(watch.paused)
