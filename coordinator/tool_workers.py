"""The workers of the four tools for one command: those that are alive already, or some of its own.

Invariants: workers are joined only where all four tools are served; else the tools' queues, and no others,
get workers on a Redis of their own; whatever ends the command, those are stopped and their folder is gone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from coordinator import processes
from coordinator.claim import connect, published
from coordinator.config import CONFIG_FILE, ServiceConfig
from coordinator.fleet import Fleet, local_worker
from coordinator.pools import PoolSettings
from coordinator.redis_server import EmbeddedRedis
from coordinator.signals import StopSignals
from policy.document import SOURCES
from workers.presence import served
from workers.settings import REDIS_ENV, BlobSettings

END_S = 10.0
SLOTS = 4  # jobs at once in one worker of our own: a single document has few

Say = Callable[[str], None]


@contextlib.contextmanager
def tool_workers(config: ServiceConfig, signals: StopSignals, say: Say) -> Iterator[ServiceConfig]:
    """The configuration under which the tools are reached. Raises `InfrastructureFault` with the log of a
    worker that does not start.
    """
    joined = _living(config, say)
    if joined is not None:
        yield joined
        return
    with _own(config, signals, say) as own:
        yield own


def _living(config: ServiceConfig, say: Say) -> ServiceConfig | None:
    """The configuration for a Redis on which workers of all four tools are alive, or None."""
    if not config.external_redis:
        return None
    try:
        with connect(config.queue) as client:
            lacking = [tool for tool in SOURCES if tool not in served(client)]
        theirs = None if lacking else published(config.queue)
    except (redis.RedisError, ValueError) as error:
        say(f"no Redis answers at the address given ({type(error).__name__}); starting one here")
        return None
    if lacking:
        say(f"no worker for {', '.join(lacking)} is alive on the Redis given; starting all here")
        return None
    if theirs is None:
        return config
    # Images lie where those workers put them.
    return config.model_copy(update={"blobs": BlobSettings.model_validate(theirs.get("blobs", {}))})


@contextlib.contextmanager
def _own(config: ServiceConfig, signals: StopSignals, say: Say) -> Iterator[ServiceConfig]:
    """A Redis and workers of the tools, in a folder that goes with them."""
    processes.adopt_orphans()
    before = frozenset(process.pid for process in processes.descendants())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmi-generate-")))
        stack.callback(lambda: processes.end_all(END_S, keep=before))
        stack.enter_context(_own_redis_only())
        say("starting Redis")
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        config = config.model_copy(
            update={
                "queue": config.queue.model_copy(update={"redis_url": server.url}),
                "blobs": BlobSettings(url=str(folder / "blobs")),
            }
        )
        config.save(folder)
        pools = tool_pools(config)
        say(f"starting the workers: {', '.join(pool.name for pool in pools)}")
        fleet = Fleet(pools, local_worker(folder / CONFIG_FILE, folder), config.workers.ready_s)
        stack.callback(fleet.stop)
        stack.callback(setattr, signals, "stopping", True)  # from here on a signal ends all at once
        fleet.start()
        yield config


def tool_pools(config: ServiceConfig) -> list[PoolSettings]:
    """A worker for each pool of the configuration that serves tools, and for each tool that none serves."""
    kept = []
    for pool in config.workers.pools:
        queues = tuple(queue for queue in pool.queues if queue in SOURCES)
        if queues:
            kept.append(PoolSettings(queues=queues, concurrency=min(pool.concurrency, SLOTS)))
    there = {queue for pool in kept for queue in pool.queues}
    return [*kept, *(PoolSettings(queues=(tool,)) for tool in SOURCES if tool not in there)]


@contextlib.contextmanager
def _own_redis_only() -> Iterator[None]:
    """Without the variable that would lead this process and its workers to another Redis."""
    named = os.environ.pop(REDIS_ENV, None)
    try:
        yield
    finally:
        if named is not None:
            os.environ[REDIS_ENV] = named
