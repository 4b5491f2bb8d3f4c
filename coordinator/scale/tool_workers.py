"""The workers of the four tools for one command: those of the named Redis, or some of its own.

Invariants: existing workers are used only where all four tools are served. Otherwise the tools' queues, and
no others, get workers on a Redis of their own; these are stopped and their folder removed at the end.
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
from policy.tools import tool_names
from workers.broker.registry import served_queues
from workers.errors import ConfigError
from workers.settings import BlobSettings

CONCURRENCY = 4  # of a worker; a single document has few jobs


@contextlib.contextmanager
def tool_workers(config: ServiceConfig, signals: StopSignals, say: Notify) -> Iterator[ServiceConfig]:
    """Yield the configuration with which the tools are reached. Raises `InfrastructureFault` with the log of
    a worker that does not start.
    """
    joined = _existing(config, say)
    if joined is not None:
        yield joined
        return
    with _own(config, signals, say) as own:
        yield own


def _existing(config: ServiceConfig, say: Notify) -> ServiceConfig | None:
    """The configuration for workers of all four tools on the named Redis; None when they are not all
    there."""
    if not config.external_redis:
        return None
    try:
        there = served_queues(config.queue.url)
        lacking = [tool for tool in tool_names() if tool not in there]
        theirs = None if lacking else published(config.queue)
    except ConfigError:
        raise
    except (redis.RedisError, ValueError) as error:
        say(f"the named Redis does not answer ({type(error).__name__}); starting one here")
        return None
    if lacking:
        say(f"no worker serves {', '.join(lacking)} on the named Redis; starting all here")
        return None
    if theirs is None:
        return config
    # Images lie where those workers put them.
    return config.model_copy(update={"blobs": BlobSettings.model_validate(theirs.get("blobs", {}))})


@contextlib.contextmanager
def _own(config: ServiceConfig, signals: StopSignals, say: Notify) -> Iterator[ServiceConfig]:
    """A Redis and workers of the tools, in a temporary folder. A user waits for the page, so a request to a
    provider that is down fails at once.
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
    """One worker for each configured pool with tools, and for each tool without a pool."""
    kept = []
    for pool in config.workers.pools:
        queues = tuple(queue for queue in pool.queues if queue in tool_names())
        if queues:
            kept.append(PoolSettings(queues=queues, concurrency=min(pool.concurrency, CONCURRENCY)))
    there = {queue for pool in kept for queue in pool.queues}
    return (*kept, *(PoolSettings(queues=(tool,)) for tool in tool_names() if tool not in there))
