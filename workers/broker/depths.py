"""Queue depths, age of the oldest request, and totals of ended requests. Blocking; one round trip.

Invariant: the numbers of all queues come from one moment; reading them costs the same whatever is queued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.broker.keys import LEVELS, STATS
from workers.queues import QUEUES
from workers.redis_client import connect_redis
from workers.redis_script import Script

DEPTHS = Script("workers.broker.scripts", "depths", "queue")


@dataclass(frozen=True)
class QueueDepth:
    """One queue. `running`: held by workers; `oldest_s`: seconds since the oldest waiting request was posted
    (0: none); `by_level`: waiting requests of each level of priority, the highest first.

    Totals since the database was empty: `finished` requests have an outcome; `ran` of them were started, and
    ran for `service_s` seconds in total.
    """

    waiting: int
    running: int
    oldest_s: float
    finished: int = 0
    ran: int = 0
    service_s: float = 0.0
    by_level: tuple[int, ...] = ()


def read_depths(url: str) -> dict[str, QueueDepth]:
    """The depth of every queue, by name. Raises `redis.RedisError`."""
    with connect_redis(url) as client:
        pipeline: Any = client.pipeline()
        DEPTHS(pipeline, [], list(QUEUES))
        pipeline.hgetall(STATS)
        found, stats = pipeline.execute()
    depths = {}
    for queue, (*waiting, running, oldest) in zip(QUEUES, found, strict=True):
        depths[queue] = QueueDepth(
            waiting=sum(waiting),
            running=running,
            oldest_s=int(oldest) / 1e6,
            finished=int(_total(stats, queue, "n")),
            ran=int(_total(stats, queue, "ran")),
            service_s=_total(stats, queue, "service_s"),
            by_level=tuple(waiting[: len(LEVELS)]),
        )
    return depths


def _total(stats: dict[bytes, bytes], queue: str, name: str) -> float:
    return float(stats.get(f"{queue}:{name}".encode(), 0))
