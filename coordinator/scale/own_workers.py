"""A Redis and workers for one command that has no run to use.

Invariants: this process and all workers use that Redis, whatever the environment named; all that was started
is stopped when the command ends; a second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from coordinator.config.settings import CONFIG_FILE, ServiceConfig
from coordinator.console.terminal import Notify
from coordinator.host import processes
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.host.signals import StopSignals
from coordinator.scale.fleet import Fleet, local_worker
from coordinator.scale.nodes.needs import drain_s
from workers.settings import REDIS_ENV

END_S = 10.0


@contextlib.contextmanager
def own_workers(config: ServiceConfig, home: Path, signals: StopSignals, say: Notify) -> Iterator[Fleet]:
    """Start a Redis and the workers of every pool of `config`; stop them on exit.

    `home`: folder for the configuration, logs and Redis' files. Raises `InfrastructureFault` with the log of
    a worker that does not start.
    """
    processes.adopt_orphans()
    before = frozenset(process.pid for process in processes.descendants())
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: processes.end_all(END_S, keep=before))
        pools = ", ".join(pool.name for pool in config.workers.pools)
        say(f"starting Redis and the workers: {pools}")
        server = stack.enter_context(EmbeddedRedis(home / "redis"))
        stack.enter_context(_redis_in_environment(server.url))
        config.save(home)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        make, workers = local_worker(home / CONFIG_FILE, logs), config.workers
        fleet = Fleet(workers.pools, make, workers.ready_s, partial(drain_s, config))
        stack.callback(fleet.stop)
        stack.callback(setattr, signals, "stopping", True)  # from here on a signal ends everything at once
        fleet.start(lambda ready, wanted: say(f"starting the workers, {ready} of {wanted} ready"))
        yield fleet


@contextlib.contextmanager
def _redis_in_environment(url: str) -> Iterator[None]:
    before = os.environ.get(REDIS_ENV)
    os.environ[REDIS_ENV] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[REDIS_ENV]
        else:
            os.environ[REDIS_ENV] = before
