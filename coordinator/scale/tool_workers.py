"""The workers of the four tools for one command: those that are alive already, or some of its own.

Invariants: workers are joined only where all four tools are served; else the tools' queues, and no others,
get workers on a Redis of their own; whatever ends the command, those are stopped and their folder is gone.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from coordinator.config.pools import PoolSettings
from coordinator.config.settings import ServiceConfig
from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.scale.own_workers import own_workers
from coordinator.state.claim import published
from policy.tools.registry import tool_names
from workers.broker.registry import served_queues
from workers.errors import ConfigError
from workers.settings import BlobSettings

SLOTS = 4  # jobs at once in one worker of our own: a single document has few


@contextlib.contextmanager
def tool_workers(config: ServiceConfig, signals: StopSignals, say: Notify) -> Iterator[ServiceConfig]:
    """The configuration under which the tools are reached. Raises `InfrastructureFault` with the log of a
    worker that does not start.
    """
    joined = _living(config, say)
    if joined is not None:
        yield joined
        return
    with _own(config, signals, say) as own:
        yield own


def _living(config: ServiceConfig, say: Notify) -> ServiceConfig | None:
    """The configuration for a Redis on which workers of all four tools are alive, or None."""
    if not config.external_redis:
        return None
    try:
        there = served_queues(config.queue.url)
        lacking = [tool for tool in tool_names() if tool not in there]
        theirs = None if lacking else published(config.queue)
    except ConfigError:
        raise
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
def _own(config: ServiceConfig, signals: StopSignals, say: Notify) -> Iterator[ServiceConfig]:
    """A Redis and workers of the tools, in a folder that goes with them. A person waits for the page: what a
    provider that is down was asked fails at once, with its reason.
    """
    with tempfile.TemporaryDirectory(prefix="llmi-generate-") as folder:
        blobs = BlobSettings(url=str(Path(folder) / "blobs"))
        workers = config.workers.model_copy(update={"pools": tool_pools(config)})
        breaker = config.queue.breaker.model_copy(update={"while_open": "mask"})
        queue = config.queue.model_copy(update={"breaker": breaker})
        config = config.model_copy(update={"blobs": blobs, "workers": workers, "queue": queue})
        with own_workers(config, Path(folder), signals, say):
            yield config


def tool_pools(config: ServiceConfig) -> tuple[PoolSettings, ...]:
    """A worker for each pool of the configuration that serves tools, and for each tool that none serves."""
    kept = []
    for pool in config.workers.pools:
        queues = tuple(queue for queue in pool.queues if queue in tool_names())
        if queues:
            kept.append(PoolSettings(queues=queues, concurrency=min(pool.concurrency, SLOTS)))
    there = {queue for pool in kept for queue in pool.queues}
    return (*kept, *(PoolSettings(queues=(tool,)) for tool in tool_names() if tool not in there))
