"""`llmi evaluate demo`: build what is missing, start Redis and workers, evaluate a small benchmark on them.

Invariants: the evaluation is submitted, watched and reported as any other; what the command started is
stopped when it ends; the same name again continues where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.check import folders
from coordinator.config.files import SHIPPED
from coordinator.config.settings import ServiceConfig, load_services
from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.scale.fleet import Fleet
from coordinator.scale.own_workers import own_workers
from evaluation.batch import submission
from evaluation.batch.progress import Evaluation, Status
from evaluation.pages import evaluation_page
from llmi.demo.build import Parts, build, cache_folder
from llmi.demo.parts import SEED
from llmi.demo.specimen_bench import write_bench
from workers.errors import ConfigError

CONFIG = SHIPPED / "evaluate_demo.yaml"  # never a file of that name in the working directory
POLL_S = 1.0


def demo(
    name: str,
    folder: Path,
    signals: StopSignals,
    console: Console,
    say: Notify,
    show: Callable[[Status], None],
) -> tuple[str, dict[str, Any]]:
    """Evaluate the tiny vision-language policy. Returns the report's page and numbers.

    `console` shows what is built, `say` what is started, `show` the progress of the evaluation.

    Raises `ConfigError`, `BuildFailed`, `InfrastructureFault` or `Stopped`.
    """
    parts = Parts(cache_folder(), "vl", SEED)
    home = (folder / name).absolute()
    if problems := folders.cache(parts.cache):
        raise ConfigError("\n".join(problems))
    policy = build(parts, console)
    bench = write_bench(parts.cache / "specimen-bench")
    config = configure(parts, policy, home)
    with own_workers(config, home, signals, say) as fleet:
        evaluation, _ = submission.submit(config, bench, name, str(folder), None, say)
        _wait(evaluation, fleet, show)
    page, _, numbers = evaluation_page.write(evaluation.batch)
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


def _wait(evaluation: Evaluation, fleet: Fleet, show: Callable[[Status], None]) -> None:
    while True:
        status = evaluation.poll()
        show(status)
        if not status.in_progress:
            return
        fleet.reconcile()
        time.sleep(POLL_S)
