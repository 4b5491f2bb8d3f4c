"""The Celery application of worker processes (`workers.process.program` starts it).

Invariants:
- Messages are JSON.
- A message is acknowledged after its outcome is stored.
- Requests come from `workers.celery_app.delivery.claimer`. Kombu's connection serves control commands and
  events only.
- The job of a silent worker is requeued within `lease_s` (`workers.celery_app.delivery.lease`).
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from celery import Celery

from workers.celery_app import heartbeat, maintenance, reporting, wakeup
from workers.celery_app.backend import TASK_PREFIX
from workers.celery_app.delivery import consumer, pause
from workers.queues import QUEUES
from workers.settings import QueueSettings, section

SOCKET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
# A worker waits for messages without a time-out, so the kernel must detect a dead peer. Linux' defaults take
# a quarter of an hour.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 5,  # seconds, as the next
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 2,
    socket.TCP_USER_TIMEOUT: 15_000,  # milliseconds
}


_TRANSPORT_OPTIONS: dict[str, Any] = {
    "socket_timeout": SOCKET_TIMEOUT_S,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_keepalive": True,
    "socket_keepalive_options": _KEEPALIVE,
    "health_check_interval": 10,
}


def make_app(settings: QueueSettings) -> Celery:
    """A Celery application on the broker of `settings`, whatever Celery's own environment variables say."""
    app = Celery(
        "llmi",
        broker=settings.url,
        backend=f"workers.celery_app.backend.OutcomeBackend+{settings.url}",
        amqp=consumer.ClaimedQueues,
        task_cls="workers.celery_app.request:JobTask",
    )
    app.conf.update(
        broker_url=settings.url,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_proc_alive_timeout=3600.0,  # a pool process is up once its jobs are warm: minutes
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=False,  # a dashboard enables them when it connects
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a Redis without memory or disk answers with errors for a while
        worker_enable_prefetch_count_reduction=False,
        broker_connection_timeout=CONNECT_TIMEOUT_S,
        broker_transport_options=_TRANSPORT_OPTIONS,
        result_backend_always_retry=True,
        result_expires=settings.result_ttl_s,
        redis_socket_timeout=SOCKET_TIMEOUT_S,
        redis_socket_connect_timeout=CONNECT_TIMEOUT_S,
        redis_socket_keepalive=True,
        task_routes={f"{TASK_PREFIX}{kind}": {"queue": kind} for kind in QUEUES},
    )
    return app


for name in ("celery.app.trace", "celery.worker.strategy"):  # they log every outcome and every message
    logging.getLogger(name).setLevel(logging.WARNING)
app = make_app(section("queue", QueueSettings))
app.conf.imports = ("workers.celery_app.tasks",)
app.steps["consumer"].update((consumer.ClaimStep, wakeup.WakeUp, pause.PauseQueues, maintenance.Maintenance))
reporting.connect()  # first: the first lease renewal lists the metrics endpoint too
consumer.connect()
heartbeat.connect()
