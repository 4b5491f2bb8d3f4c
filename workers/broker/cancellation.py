"""Cancellation of running jobs: a flag for each request, set by one thread of the process.

A request is cancelled once its outcome is stored (`QueueClient.cancel`). Jobs that can stop early look at the
flag, for example between two steps of a pipeline. Jobs in a process of their own are killed by their worker
(`workers.celery_app.delivery.consumer`), unless the process keeps a model.

Invariants:
- Looking at a flag never waits and never uses the network. A Redis that hangs delays no GPU.
- One thread per process polls Redis every `POLL_S` for all its running requests, on a connection of its own.
  Without running requests it sends nothing. While Redis does not answer, they count as not cancelled.
- A forked process starts a thread of its own at its first request.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref

import redis

from workers.broker.keys import outcome_key
from workers.redis_client import JOB_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)
POLL_S = 0.25


class CancellationCheck:
    """Callable that returns whether one request was cancelled. Redis is polled while something refers to it.

    `process`: id of this process.
    """

    def __init__(self, request_id: str, process: int):
        self.key = outcome_key(request_id)
        self.cancelled = False
        _watcher(process).add(self)

    def __call__(self) -> bool:
        return self.cancelled


class CancellationWatcher(threading.Thread):
    """Sets the flags of the running requests of this process."""

    def __init__(self, server: redis.Redis):
        super().__init__(name="cancellations", daemon=True)
        self._server = server
        self._changed = threading.Condition()
        # The end of a job is not reported: only the job refers to its flag.
        self._watched: weakref.WeakSet[CancellationCheck] = weakref.WeakSet()

    def add(self, check: CancellationCheck) -> None:
        with self._changed:
            self._watched.add(check)
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._watched) > 0)
            time.sleep(POLL_S)
            try:
                self._poll()
            except (redis.RedisError, OSError):
                pass  # cancelled jobs run on until Redis answers
            except Exception:  # of any kind: without this thread no job of this process would notice
                logger.exception("cancellations not read")

    def _poll(self) -> None:
        with self._changed:
            running = [check for check in self._watched if not check.cancelled]
        if not running:
            return
        with self._server.pipeline(transaction=False) as pipeline:
            for check in running:
                pipeline.exists(check.key)
            for check, exists in zip(running, pipeline.execute(), strict=True):
                check.cancelled = bool(exists)


_lock = threading.Lock()
_watchers: dict[int, CancellationWatcher] = {}  # by process id


def _watcher(process: int) -> CancellationWatcher:
    with _lock:
        if process not in _watchers:
            watcher = CancellationWatcher(connect_redis(section("queue", QueueSettings).url, JOB_TIMEOUT_S))
            watcher.start()
            _watchers[process] = watcher
        return _watchers[process]
