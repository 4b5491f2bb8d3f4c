"""Queue depths, age of the next request, and totals of ended requests. Blocking; one round trip of a few ms.

Invariant: the numbers of all queues come from one moment.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from workers.broker.keys import PRIORITY_STEPS, STATS, UNACKED, queue_lists
from workers.queues import QUEUES
from workers.redis_client import connect_redis
from workers.redis_script import Script

COUNT_RUNNING = Script("workers.broker.scripts", "count_running")


@dataclass(frozen=True)
class QueueDepth:
    """One queue. `running`: held by workers; `oldest_s`: age in seconds of the next request (0: none).

    Totals since the database was empty: `finished` requests have an outcome; `ran` of them were started, and
    ran for `service_s` seconds in total.
    """

    waiting: int
    running: int
    oldest_s: float
    finished: int = 0
    ran: int = 0
    service_s: float = 0.0


def read_depths(url: str) -> dict[str, QueueDepth]:
    """The depth of every queue, by name. Raises `redis.RedisError`."""
    lists = [key for queue in QUEUES for key in queue_lists(queue)]
    with connect_redis(url) as client:
        pipeline: Any = client.pipeline()
        COUNT_RUNNING(pipeline, [UNACKED])
        for key in lists:
            pipeline.llen(key)
        for key in lists:
            pipeline.lindex(key, -1)
        pipeline.hgetall(STATS)
        held, *rest, stats = pipeline.execute()
    running = {queue.decode(): count for queue, count in zip(held[::2], held[1::2], strict=True)}
    lengths, heads = rest[: len(lists)], rest[len(lists) :]
    now, steps = time.time(), len(PRIORITY_STEPS)
    depths = {}
    for number, queue in enumerate(QUEUES):
        part = slice(number * steps, (number + 1) * steps)
        oldest_s = max((_age(head, now) for head in heads[part] if head is not None), default=0.0)
        depths[queue] = QueueDepth(
            waiting=sum(lengths[part]),
            running=running.get(queue, 0),
            oldest_s=oldest_s,
            finished=int(_total(stats, queue, "n")),
            ran=int(_total(stats, queue, "ran")),
            service_s=_total(stats, queue, "service_s"),
        )
    return depths


def _total(stats: dict[bytes, bytes], queue: str, name: str) -> float:
    return float(stats.get(f"{queue}:{name}".encode(), 0))


def _age(message: bytes, now: float) -> float:
    try:
        return max(0.0, now - float(json.loads(message)["headers"]["posted"]))
    except (ValueError, KeyError, TypeError):
        return 0.0  # not a message of this program
