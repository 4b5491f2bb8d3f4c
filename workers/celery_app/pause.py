"""Leaves requests in their queue while their provider is left alone, so that they hold no worker's slot.

A slot that slept until the provider is back would be missing for other queues of the same process.
Invariants: a queue is left unserved only while its breaker is open or a request tries the provider; where
requests are to fail at once (`mask`), and while Redis does not answer, every queue is served; Celery's loop
is never blocked: a thread looks, the loop's timer acts.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from celery import bootsteps

from workers.broker.breakers import TIMEOUT_S, fetch_breakers
from workers.jobs import JOBS, provider_of
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
LOOK_S = 0.25


class BreakerWatch(threading.Thread):
    """Looks at the breakers of `providers`, by queue; `shut` are the queues to leave alone."""

    def __init__(self, settings: QueueSettings, providers: dict[str, str]):
        super().__init__(name="breakers", daemon=True)
        self._redis = redis.Redis.from_url(
            settings.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
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
                logger.debug("no look at the breakers: %s", error)
                self.paused = frozenset()
            except Exception:  # of any kind: without this thread, what is shut now would stay so
                logger.exception("no look at the breakers")
                self.paused = frozenset()
            time.sleep(LOOK_S)


class PauseQueues(bootsteps.StartStopStep):
    """Stops and takes up consuming as `BreakerWatch` says; after a reconnection Celery consumes all again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _watch: BreakerWatch | None = None  # one for the life of the worker, whatever becomes of its connection

    def __init__(self, consumer: Any, **options: Any):
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        settings = section("queue", QueueSettings)
        served = [kind for kind in consumer.app.amqp.queues.consume_from if kind in JOBS]
        providers = {kind: name for kind in served if (name := provider_of(kind))}
        if not providers or settings.breaker.while_open == "mask":
            return
        if PauseQueues._watch is None:
            PauseQueues._watch = BreakerWatch(settings, providers)
            PauseQueues._watch.start()
        self._timer = consumer.timer.call_repeatedly(LOOK_S, self._set, (consumer, tuple(providers)))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @staticmethod
    def _set(consumer: Any, kinds: tuple[str, ...]) -> None:
        taking = consumer.task_consumer
        if taking is None or PauseQueues._watch is None:
            return
        shut = PauseQueues._watch.paused
        for kind in kinds:
            if kind in shut and taking.consuming_from(kind):
                taking.cancel_by_queue(kind)
                logger.warning("%s is left in its queue: its provider is down", kind)
            elif kind not in shut and not taking.consuming_from(kind):
                taking.add_queue(consumer.app.amqp.queues[kind])
                taking.consume()
                logger.warning("%s is taken again", kind)
