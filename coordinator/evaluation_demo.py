"""`llmi evaluate demo`: build what is missing, start Redis and workers, evaluate a small benchmark on them.

Invariants: the evaluation goes the same way as any other: submitted, watched, reported; whatever ends the
command, what it started is stopped; the same name again goes on where the last time stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator import checks, evaluations, processes
from coordinator.build import Parts, build, cache_folder
from coordinator.config import CONFIG_FILE, ServiceConfig, load_services
from coordinator.evaluations import Evaluation, Say, Status
from coordinator.fleet import Fleet, local_worker
from coordinator.redis_server import EmbeddedRedis
from coordinator.signals import StopSignals
from evaluation import report
from evaluation.specimen_bench import write_bench
from workers.errors import ConfigError
from workers.settings import REDIS_ENV

SEED = 1  # of `llmi demo`, so that both use the same parts
CONFIG = "evaluate_demo"
END_S = 10.0
LOOK_S = 1.0


def demo(
    name: str, folder: Path, signals: StopSignals, console: Console, show: Callable[[Status], None]
) -> tuple[str, dict[str, Any]]:
    """Evaluate the tiny vision-language policy. Returns the report's page and numbers.

    Raises `ConfigError`, `BuildFailed`, `InfrastructureFault` or `Stopped`.
    """
    parts = Parts(cache_folder(), "vl", SEED)
    home = (folder / name).absolute()
    if problems := checks.cache(parts.cache):
        raise ConfigError("\n".join(problems))
    policy = build(parts, console)
    bench = write_bench(parts.cache / "specimen-bench")
    config = configure(parts, policy, home)
    say: Say = lambda words: console.print(words, style="dim", highlight=False)  # noqa: E731 - one line
    with _services(config, home, signals, say) as fleet:
        evaluation, _ = evaluations.submit(config, bench, name, str(folder), None, say)
        _wait(evaluation, fleet, show)
    page, _, numbers = report.write(evaluation.batch)
    return page, numbers


def configure(parts: Parts, policy: Path, home: Path) -> ServiceConfig:
    """The shipped configuration with the built parts put in; images lie beside the results."""
    return load_services(
        CONFIG,
        {
            "author.model": str(policy),
            "tools.search.library": str(parts.library),
            "tools.diffusion.model": str(parts.image_model),
            "tools.edit.model": str(parts.image_model),
            "blobs.url": str(home / "blobs"),
        },
    )


@contextlib.contextmanager
def _services(config: ServiceConfig, home: Path, signals: StopSignals, say: Say) -> Iterator[Fleet]:
    """A Redis and workers of our own for as long as it takes."""
    processes.adopt_orphans()
    before = frozenset(process.pid for process in processes.descendants())
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: processes.end_all(END_S, keep=before))
        say("starting Redis and the workers")
        server = stack.enter_context(EmbeddedRedis(home / "redis"))
        stack.enter_context(_named(server.url))
        config.save(home)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        fleet = Fleet(config.workers.pools, local_worker(home / CONFIG_FILE, logs), config.workers.ready_s)
        stack.callback(fleet.stop)
        stack.callback(setattr, signals, "stopping", True)  # from here on a signal ends all at once
        fleet.start()
        yield fleet


def _wait(evaluation: Evaluation, fleet: Fleet, show: Callable[[Status], None]) -> None:
    while True:
        status = evaluation.look()
        show(status)
        if not status.under_way:
            return
        fleet.mend()
        time.sleep(LOOK_S)


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    """This process and its workers use the Redis at `url`, whatever was named before."""
    before = os.environ.get(REDIS_ENV)
    os.environ[REDIS_ENV] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[REDIS_ENV]
        else:
            os.environ[REDIS_ENV] = before
