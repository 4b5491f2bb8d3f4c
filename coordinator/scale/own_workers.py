"""Redis and workers for one command that has no run: those of the named Redis, or some of its own.

Invariants: existing workers are used only where all four tools are served; otherwise the tools' queues, and
no others, get workers on a Redis of their own, whatever the environment named. All that was started is
stopped when the command ends, and its folder removed; a second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import redis

from coordinator.config.pools import PoolSettings
from coordinator.config.settings import CONFIG_FILE, ServiceConfig
from coordinator.console.terminal import Notify
from coordinator.host import processes
from coordinator.host.environment import environment
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.host.signals import StopSignals
from coordinator.scale.fleet import Fleet, local_worker
from coordinator.scale.nodes.needs import drain_s
from coordinator.state.claim import published
from policy.tools import tool_names
from workers.broker.registry import served_queues
from workers.errors import ConfigError
from workers.settings import REDIS_ENV, BlobSettings

CONCURRENCY = 4  # of a worker; a single document has few jobs
END_S = 10.0


@contextlib.contextmanager
def own_workers(config: ServiceConfig, home: Path, signals: StopSignals, notify: Notify) -> Iterator[Fleet]:
    """Start a Redis and the workers of every pool of `config`; stop them on exit.

    `home`: folder for the configuration, logs and Redis' files. Raises `InfrastructureFault` with the log of
    a worker that does not start.
    """
    processes.adopt_orphans()
    before = frozenset(process.pid for process in processes.descendants())
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: processes.end_all(END_S, keep=before))
        pools = ", ".join(pool.name for pool in config.workers.pools)
        notify(f"starting Redis and the workers: {pools}")
        server = stack.enter_context(EmbeddedRedis(home / "redis"))
        stack.enter_context(environment({REDIS_ENV: server.url}))
        config.save(home)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        make, workers = local_worker(home / CONFIG_FILE, logs), config.workers
        fleet = Fleet(workers.pools, make, workers.ready_s, partial(drain_s, config))
        stack.callback(fleet.stop)
        stack.callback(setattr, signals, "stopping", True)  # from here on a signal ends everything at once
        fleet.start(lambda ready, wanted: notify(f"starting the workers, {ready} of {wanted} ready"))
        yield fleet


@contextlib.contextmanager
def tool_workers(config: ServiceConfig, signals: StopSignals, notify: Notify) -> Iterator[ServiceConfig]:
    """Yield the configuration with which the tools are reached. Raises `InfrastructureFault` with the log of
    a worker that does not start.
    """
    joined = _existing(config, notify)
    if joined is not None:
        yield joined
        return
    with _own(config, signals, notify) as own:
        yield own


def _existing(config: ServiceConfig, notify: Notify) -> ServiceConfig | None:
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
        notify(f"the named Redis does not answer ({type(error).__name__}); starting one here")
        return None
    if lacking:
        notify(f"no worker serves {', '.join(lacking)} on the named Redis; starting all here")
        return None
    if theirs is None:
        return config
    # Images lie where those workers put them.
    return config.model_copy(update={"blobs": BlobSettings.model_validate(theirs.get("blobs", {}))})


@contextlib.contextmanager
def _own(config: ServiceConfig, signals: StopSignals, notify: Notify) -> Iterator[ServiceConfig]:
    """A Redis and workers of the tools, in a temporary folder. A user waits for the page, so a request to a
    provider that is down fails at once.
    """
    with tempfile.TemporaryDirectory(prefix="llmi-generate-") as folder:
        blobs = BlobSettings(url=str(Path(folder) / "blobs"))
        workers = config.workers.model_copy(update={"pools": tool_pools(config)})
        breaker = config.queue.breaker.model_copy(update={"while_open": "mask"})
        queue = config.queue.model_copy(update={"breaker": breaker})
        config = config.model_copy(update={"blobs": blobs, "workers": workers, "queue": queue})
        with own_workers(config, Path(folder), signals, notify):
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
