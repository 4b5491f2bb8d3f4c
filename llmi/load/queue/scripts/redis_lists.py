"""The lower bound: LPUSH and BRPOP of two lists, without tasks, acknowledgement or stored results.

`python redis_lists.py THREADS` is the worker: it moves each message from the one list to the other.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import redis

URL = os.environ["BENCH_REDIS_URL"]
REQUESTS, REPLIES = "requests", "replies"
TIMEOUT_S = 60

_client: Any = redis.Redis.from_url(URL)


def post() -> None:
    _client.lpush(REQUESTS, b"noop")


def wait(_handle: None) -> None:
    if _client.brpop([REPLIES], TIMEOUT_S) is None:
        raise TimeoutError("no reply")


def serve() -> None:
    client: Any = redis.Redis.from_url(URL)
    while True:
        client.lpush(REPLIES, client.brpop([REQUESTS])[1])


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        threading.Thread(target=serve).start()
