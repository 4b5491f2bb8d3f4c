"""What the evaluation jobs of a process share on its event loop: one queue client, and one author per
settings, so that a local model is loaded once.
"""

from __future__ import annotations

import functools
import os
import threading
import time

import redis

from evaluation.authors.author import Author, make_author
from evaluation.settings import AuthorSettings
from workers import event_loop
from workers.client.client import QueueClient
from workers.messages import LOW
from workers.redis_client import SUBMIT_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

START_S = 30.0
_starting = threading.Lock()


class Resources:
    """`client`: for use on the loop; `redis`: for use in threads."""

    def __init__(self, settings: QueueSettings):
        self._authors: dict[AuthorSettings, Author] = {}
        self.client = QueueClient(settings, priority=LOW)
        self.redis: redis.Redis = connect_redis(settings.url, SUBMIT_TIMEOUT_S)
        event_loop.run(self.client.start(), time.time() + START_S)

    def author(self, settings: AuthorSettings) -> Author:
        """The author of these settings. Call it on the loop."""
        if settings not in self._authors:
            self._authors[settings] = make_author(settings)
        return self._authors[settings]


def resources() -> Resources:
    """Those of this process, made at the first call."""
    with _starting:
        return _resources(os.getpid())


@functools.cache
def _resources(_process: int) -> Resources:
    return Resources(section("queue", QueueSettings))
