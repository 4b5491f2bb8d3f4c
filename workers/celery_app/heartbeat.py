"""A worker's heartbeat in Redis: that it consumes, and which of its pool processes are warm.

Invariants:
- A worker is ready when its parent consumes and every process that runs jobs has warmed the jobs of its
  queues.
- A worker that cannot load what a job needs shuts down, and its log says why.
- The key expires one lease after the last heartbeat. Each heartbeat writes the parent's fields again, so they
  survive a Redis that lost its memory.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from typing import Any, cast

from celery import signals
from celery.concurrency.thread import TaskPool as Threads
from celery.exceptions import WorkerTerminate

from workers.broker.keys import WORKERS, worker_key
from workers.broker.retry import retry_redis
from workers.jobs import JOBS
from workers.queues import QUEUES
from workers.redis_client import connect_redis
from workers.settings import QueueSettings, own_fingerprint, section

logger = logging.getLogger(__name__)
LOADING_TTL_S = 3600  # before the first heartbeat: warming may take minutes
_self: dict[str, Any] = {
    "name": "",
    "kinds": (),
    "fields": {},  # written by the parent
}  # this worker; set in the parent, inherited by its children
_warm_slots = multiprocessing.get_context("fork").Value("i", 0)  # shared with the children


def renew(pipeline: Any, settings: QueueSettings, clock_s: float) -> None:
    """Add one heartbeat to `pipeline`. `clock_s`: this machine's clock less that of Redis, seconds."""
    fields = _self["fields"] | {"clock_s": f"{clock_s:.3f}"}
    _register(pipeline, fields, max(1, round(settings.lease_s)), time.time() - clock_s)


def _register(pipeline: Any, fields: dict[str, Any], ttl_s: int, now: float) -> None:
    """Add the worker's key and its entry to `pipeline`. `now`: Unix seconds by the clock of Redis."""
    name = _self["name"]
    pipeline.hset(worker_key(name), mapping=fields)
    pipeline.expire(worker_key(name), ttl_s)
    pipeline.zadd(WORKERS, {name: now})
    pipeline.zremrangebyscore(WORKERS, "-inf", now - LOADING_TTL_S)
    pipeline.expire(WORKERS, LOADING_TTL_S)


def warm_slots() -> int:
    """How many slots of this worker have warmed, replaced processes included."""
    return int(_warm_slots.value)


def _count_warm(slots: int) -> None:
    with _warm_slots.get_lock():
        _warm_slots.value += slots


def _publish(**fields: Any) -> None:
    """Write fields from the parent. Every heartbeat repeats them (`workers.celery_app.delivery.lease`)."""
    _self["fields"].update(fields)
    _write(fields)


@retry_redis
def _write(fields: dict[str, Any], forget: bool = False) -> None:
    settings = section("queue", QueueSettings)
    with connect_redis(settings.url) as client:
        pipeline = client.pipeline()
        if forget:
            pipeline.delete(worker_key(_self["name"]))
        seconds, _micros = cast(tuple[int, int], client.time())
        _register(pipeline, fields, LOADING_TTL_S, float(seconds))
        pipeline.execute()


def _warm() -> bool:
    """Load what the jobs of this worker need. Returns whether all of it could be loaded."""
    for kind in _self["kinds"]:
        entry = JOBS.get(kind)
        if entry is None:
            logger.error("no job is registered for queue %s (entry points llmi.jobs); shutting down", kind)
            return False
        if entry.warm is not None:
            try:
                entry.warm()
            except Exception:  # of any kind: Celery would log it and keep a worker that can run nothing
                logger.exception("warming %s failed; shutting down", kind)
                return False
    return True


def connect() -> None:
    """Connect to Celery's worker signals."""

    def setup(sender: str, instance: Any, **_: Any) -> None:
        kinds = tuple(kind for kind in instance.app.amqp.queues.consume_from if kind in QUEUES)
        _self.update(
            name=sender, kinds=kinds, fields={"queues": ",".join(kinds), "config": own_fingerprint()}
        )
        _write(_self["fields"], forget=True)

    def process_started(**_: Any) -> None:
        if not _warm():
            os.kill(os.getppid(), signal.SIGTERM)
            raise SystemExit(1)
        _count_warm(1)
        _write({f"warm:{os.getpid()}": os.getpid()})

    def consuming(sender: Any, **_: Any) -> None:
        if isinstance(sender.pool, Threads):
            if not _warm():
                raise WorkerTerminate(1)
            _count_warm(sender.pool.num_processes)
            _publish(**{f"warm:{slot}": os.getpid() for slot in range(sender.pool.num_processes)})
        _publish(consuming=os.getpid())

    def shut_down(**_: Any) -> None:
        settings = section("queue", QueueSettings)
        with connect_redis(settings.url) as client:
            client.delete(worker_key(_self["name"]))
            client.zrem(WORKERS, _self["name"])

    signals.celeryd_after_setup.connect(setup, weak=False)
    signals.worker_process_init.connect(process_started, weak=False)
    signals.worker_ready.connect(consuming, weak=False)
    signals.worker_shutdown.connect(shut_down, weak=False)
