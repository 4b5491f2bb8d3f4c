"""A worker's presence in Redis: which process consumes, which of its processes are warm. Observed, never
assumed.

Invariant: a worker is ready when its parent consumes and every process that runs jobs has warmed the jobs of
its queues; one that cannot load what these need ends, and its log says why; the key expires one lease after
the worker's last beat, and what it said is there again with its next.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import redis
from celery import signals
from celery.concurrency.thread import TaskPool as Threads
from celery.exceptions import WorkerTerminate

from workers.broker.keys import worker_key
from workers.broker.retry import retry_redis
from workers.jobs import JOBS
from workers.queues import QUEUES
from workers.settings import QueueSettings, own_fingerprint, section

logger = logging.getLogger(__name__)
LOADING_S = 3600  # of presence before the first beat: warming may take minutes
_self: dict[str, Any] = {
    "name": "",
    "kinds": (),
    "said": {},  # by the parent
}  # of this worker; set in the parent, inherited by its children


def renew(pipeline: Any, settings: QueueSettings) -> None:
    """Add to `pipeline` what keeps this worker's presence alive, also through a loss of Redis' memory."""
    pipeline.hset(worker_key(_self["name"]), mapping=_self["said"])
    pipeline.expire(worker_key(_self["name"]), max(1, round(settings.lease_s)))


def _say(**fields: Any) -> None:
    """In the parent; the beats of `workers.celery_app.lease` say it again."""
    _self["said"].update(fields)
    _write(fields)


@retry_redis
def _write(fields: dict[str, Any], forget: bool = False) -> None:
    settings = section("queue", QueueSettings)
    with redis.Redis.from_url(settings.url, socket_timeout=5.0, socket_connect_timeout=5.0) as client:
        pipeline = client.pipeline()
        if forget:
            pipeline.delete(worker_key(_self["name"]))
        pipeline.hset(worker_key(_self["name"]), mapping=fields)
        pipeline.expire(worker_key(_self["name"]), LOADING_S)
        pipeline.execute()


def _warm() -> bool:
    """Whether the jobs of this worker have what they need."""
    for kind in _self["kinds"]:
        entry = JOBS.get(kind)
        if entry is not None and entry.warm is not None:
            try:
                entry.warm()
            except Exception:  # of any kind: Celery would say so and go on with a worker that cannot work
                logger.exception("what %s needs could not be loaded; this worker ends", kind)
                return False
    return True


def connect() -> None:
    """Hook into the worker: called once, where the app is made."""

    def setup(sender: str, instance: Any, **_: Any) -> None:
        kinds = tuple(kind for kind in instance.app.amqp.queues.consume_from if kind in QUEUES)
        _self.update(name=sender, kinds=kinds, said={"queues": ",".join(kinds), "config": own_fingerprint()})
        _write(_self["said"], forget=True)

    def process_started(**_: Any) -> None:
        if not _warm():
            os.kill(os.getppid(), signal.SIGTERM)
            raise SystemExit(1)
        _write({f"warm:{os.getpid()}": os.getpid()})

    def consuming(sender: Any, **_: Any) -> None:
        if isinstance(sender.pool, Threads):
            if not _warm():
                raise WorkerTerminate(1)
            _say(**{f"warm:{slot}": os.getpid() for slot in range(sender.pool.num_processes)})
        _say(consuming=os.getpid())

    def gone(**_: Any) -> None:
        settings = section("queue", QueueSettings)
        with redis.Redis.from_url(settings.url, socket_timeout=5.0, socket_connect_timeout=5.0) as client:
            client.delete(worker_key(_self["name"]))

    signals.celeryd_after_setup.connect(setup, weak=False)
    signals.worker_process_init.connect(process_started, weak=False)
    signals.worker_ready.connect(consuming, weak=False)
    signals.worker_shutdown.connect(gone, weak=False)
