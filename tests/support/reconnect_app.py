"""The application of the queue tests, which loses its connections once while it starts.

A control command reports what its event loop holds.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.control import control_command
from queue_app import app

from workers.celery_app.delivery.consumer import ClaimStep
from workers.redis_client import connect_redis

COMMAND = "loop_size"


class LoseConnections(bootsteps.StartStopStep):
    """Closes all connections after the last step that uses one, before the first round of the loop."""

    requires = (ClaimStep, "celery.worker.consumer.control:Control")
    _lost = False

    def start(self, consumer: Any) -> None:
        if LoseConnections._lost:
            return
        LoseConnections._lost = True
        with connect_redis(consumer.app.conf.broker_url) as client:
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@control_command(name=COMMAND)
def loop_size(state: Any) -> dict[str, int]:
    """How many callbacks, readers and timers the event loop has."""
    hub = state.consumer.hub
    return {"ticks": len(hub.on_tick), "readers": len(hub.readers), "timers": len(hub.timer.queue)}


app.steps["consumer"].add(LoseConnections)
