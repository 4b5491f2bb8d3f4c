"""One event loop per worker process, in its own thread, for jobs that post other jobs and await them.

Invariants:
- All jobs of a process share the loop, one queue client and one author per settings, so that a local model is
  loaded once.
- A job's thread waits at most until its deadline. Then its work is cancelled.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import redis

from evaluation.authors.author import Author, make_author
from evaluation.settings import AuthorSettings
from workers.client.client import QueueClient
from workers.errors import Cause, InfrastructureFault
from workers.messages import LOW
from workers.redis_client import SUBMIT_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

T = TypeVar("T")
START_S = 30.0
_starting = threading.Lock()


class ProcessLoop:
    """`client`: for use on the loop; `redis`: for use in threads."""

    def __init__(self, settings: QueueSettings):
        self._loop = asyncio.new_event_loop()
        self._authors: dict[AuthorSettings, Author] = {}
        self.client = QueueClient(settings, priority=LOW)
        self.redis: redis.Redis = connect_redis(settings.url, SUBMIT_TIMEOUT_S)
        threading.Thread(target=self._loop.run_forever, name="evaluations", daemon=True).start()
        self.run(self.client.start(), time.time() + START_S)

    def run(self, work: Coroutine[Any, Any, T], deadline: float) -> T:
        """Run `work` from a job's thread and return its result.

        Raises what it raises, and `InfrastructureFault(TIMEOUT)` at `deadline` (Unix seconds).
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(max(0.0, deadline - time.time()))
        except TimeoutError as error:
            future.cancel()
            raise InfrastructureFault(Cause.TIMEOUT, "the item was not complete by its deadline") from error

    def author(self, settings: AuthorSettings) -> Author:
        """The author of these settings. Call it on the loop."""
        if settings not in self._authors:
            self._authors[settings] = make_author(settings)
        return self._authors[settings]


def process_loop() -> ProcessLoop:
    """This process's loop, started at the first call."""
    with _starting:
        return _process_loop()


@functools.cache
def _process_loop() -> ProcessLoop:
    return ProcessLoop(section("queue", QueueSettings))
