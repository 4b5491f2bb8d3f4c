"""The boot step by which Celery's consumer gets its messages from the claimer, not from kombu.

Invariants:
- Messages arrive only while the event loop runs with a connection.
- When the loop ends, what no process has started goes back to its queue.
- The claimer and the lease renewer are one thread each for the life of the worker, across reconnections.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import kombu
from celery import signals
from celery.app.amqp import AMQP
from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state

from workers.celery_app import heartbeat
from workers.celery_app.delivery.claimer import Claimer
from workers.celery_app.delivery.lease import LeaseRenewer
from workers.celery_app.timer_step import TimerStep
from workers.celery_app.wakeup import WakeUp
from workers.queues import QUEUES
from workers.settings import QueueSettings, section


class ListedConsumer(kombu.Consumer):
    """Lists the queues, for dashboards, and consumes nothing."""

    def consume(self, no_ack: bool | None = None) -> None:
        """Do nothing. The claimer consumes."""


class ClaimedQueues(AMQP):
    """Celery's producer and consumer of messages, with `ListedConsumer`."""

    Consumer = ListedConsumer


class ClaimStep(TimerStep):
    """Starts, stops and connects the claimer."""

    requires = (*TimerStep.requires, WakeUp)
    claimer: Claimer | None = None
    renewer: LeaseRenewer | None = None

    def start(self, consumer: Any) -> None:
        if ClaimStep.claimer is None:
            settings = section("queue", QueueSettings)
            queues = [kind for kind in consumer.app.amqp.queues.consume_from if kind in QUEUES]
            slots = consumer.pool.num_processes
            ClaimStep.claimer = Claimer(
                settings, consumer.hostname, queues, slots, lambda: heartbeat.warm_slots() >= slots
            )
            ClaimStep.renewer = LeaseRenewer(settings, consumer.hostname, queues, ClaimStep.claimer)
            ClaimStep.claimer.start()
            ClaimStep.renewer.start()
        assert ClaimStep.renewer is not None
        ClaimStep.renewer.on_cancelled = partial(_call_soon, consumer, _kill, consumer)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Begin to claim; Celery calls this before each run of its event loop."""
        assert self.claimer is not None
        self.claimer.resume(partial(_call_soon, consumer), consumer.task_consumer.on_message)

    def stop(self, consumer: Any) -> None:
        super().stop(consumer)
        if self.claimer is not None:
            started = [one for one in tuple(state.active_requests) if one.time_start is not None]
            self.claimer.stop_claiming(one.message.delivery_tag for one in started)


def _call_soon(consumer: Any, call: Any, *arguments: Any) -> None:
    """Call in the event loop, from another thread."""
    consumer.hub.call_soon(call, *arguments)
    WakeUp.notify()


def _kill(consumer: Any, tags: set[str]) -> None:
    """Kill the jobs of cancelled requests. A thread cannot be killed, and `JobRequest.terminate` spares a
    process that keeps a model.
    """
    if isinstance(consumer.pool, Threads):
        return
    for request in tuple(state.active_requests):
        if request.message.delivery_tag in tags:
            request.terminate(consumer.pool, signal="SIGKILL")


def connect() -> None:
    """Connect to Celery's worker signals."""

    def stopped(**_: Any) -> None:
        if ClaimStep.renewer is not None:
            ClaimStep.renewer.stop()

    # Connected before `workers.celery_app.heartbeat`, which removes the worker's key.
    signals.worker_shutdown.connect(stopped, weak=False)
