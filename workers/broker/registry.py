"""The workers registered in Redis by their heartbeats. Blocking; a few ms.

A killed worker stays listed until its lease expires; one that died while it loaded its models, for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import redis

from workers.broker.keys import WORKERS, worker_key
from workers.redis_client import connect_redis


@dataclass(frozen=True)
class WorkerRecord:
    """One worker. `name` is unique on its `node`; a worker that is not `ready` still loads its models;
    `config` is the fingerprint of its configuration. `clock_s`: its clock less that of Redis, seconds; None
    until it has renewed its leases once.
    """

    name: str
    node: str
    queues: tuple[str, ...]
    ready: bool
    config: str = ""
    clock_s: float | None = None


def read_workers(url: str) -> list[WorkerRecord]:
    """All workers, by node and name. Raises `redis.RedisError`."""
    with connect_redis(url) as client:
        names = [name.decode() for name in cast(list[bytes], client.zrange(WORKERS, 0, -1))]
        pipeline: Any = client.pipeline(transaction=False)
        for name in names:
            pipeline.hmget(worker_key(name), "queues", "consuming", "config", "clock_s")
        states = pipeline.execute()
    found = []
    for full_name, (queues, consuming, config, clock) in zip(names, states, strict=True):
        if queues is None:  # its key has expired
            continue
        name, _, node = full_name.partition("@")
        served = tuple(queues.decode().split(",")) if queues else ()
        fingerprint = config.decode() if config else ""
        clock_s = float(clock) if clock else None
        found.append(WorkerRecord(name, node, served, consuming is not None, fingerprint, clock_s))
    return sorted(found, key=lambda worker: (worker.node, worker.name))


def served_queues(url: str) -> set[str]:
    """The queues that at least one ready worker consumes. Raises `redis.RedisError`."""
    return {queue for worker in read_workers(url) if worker.ready for queue in worker.queues}


def is_ready(client: redis.Redis, name: str, pid: int, concurrency: int) -> bool:
    """Whether the worker of node name `name` and parent process `pid` consumes with `concurrency` warm pool
    processes. Raises `redis.RedisError`.
    """
    state: Any = client.hgetall(worker_key(name))
    warm = sum(key.startswith(b"warm:") for key in state)
    return state.get(b"consuming") == str(pid).encode() and warm >= concurrency
