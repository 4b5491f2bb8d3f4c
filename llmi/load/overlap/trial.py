"""One variant of `llmi bench overlap`: a real GRPO run with its own Redis, Ray, workers and trainer.

Real: verl, vLLM, the tiny policy, queues, Celery workers, ledger, rules and judges. Simulated: service times
(`timed_jobs`). Invariants: all variants have the same services and draws, batch, staleness bound and policy;
one runs at a time; all processes of a variant have ended before the next starts.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.settings import RunConfig, load
from coordinator.console.terminal import Notify
from coordinator.host.environment import environment
from coordinator.host.processes import MemoryWatch
from coordinator.host.signals import StopSignals
from coordinator.run.services import Services
from coordinator.watch.progress import Progress
from llmi.load.overlap.loops import WIDTHS_ENV
from llmi.load.overlap.settings import (
    JUDGE_THREADS,
    TOOL_THREADS,
    OverlapSettings,
    VariantName,
    widths,
)
from llmi.load.simulated.services import ServiceSettings
from llmi.load.simulated.timed_workers import timed_workers
from llmi.load.training import Parts, measured_run
from llmi.tools import SOURCES
from policy.ledger.reader import close_open
from policy.ledger.records import Ledger
from policy.settings import LOOP

UNCHANGED_LR = 1e-12  # training does all its work and changes nothing
TICK_S = 0.5


@dataclass(frozen=True)
class Finished:
    """One variant's run. `peak_rss_bytes`: of all its processes (`processes.memory_bytes`)."""

    name: VariantName
    folder: Path
    ledger: Ledger
    peak_rss_bytes: int
    seconds: float


def configure(settings: OverlapSettings, name: VariantName, parts: Parts) -> RunConfig:
    """The variant's run, made of the demo's."""
    asynchronous = name in ("coupled", "llmi")
    return load(
        "demo",
        {
            **measured_run(parts),
            "name": name,
            "train.seed": settings.seed,
            "train.steps": settings.variants[name].total(settings.repeats),
            "train.batch_size": settings.batch,
            "train.n": settings.n,
            "train.response_tokens": settings.response_tokens,
            "train.max_staleness": settings.max_staleness,
            # verl's default for its asynchronous trainers; 0: a batch is requested when the last is done.
            "train.warmup_batches": 1.0 if asynchronous else 0.0,
            "train.lr": UNCHANGED_LR,
            "train.admission": "adaptive" if name == "llmi" else "fixed",
        },
    )


def run_variant(
    settings: OverlapSettings,
    services: ServiceSettings,
    name: VariantName,
    parts: Parts,
    folder: Path,
    signals: StopSignals,
    say: Notify,
) -> Finished:
    """Run it in `folder/name`. Raises as `Services` and `Trainer` do."""
    run = (folder / name).absolute()
    run.mkdir(parents=True)
    config = configure(settings, name, parts)
    config = config.model_copy(update={"blobs": config.blobs.model_copy(update={"url": str(run / "blobs")})})
    began, progress = time.monotonic(), Progress(run)
    environ = {WIDTHS_ENV: _widths(settings, services, name)}
    with MemoryWatch() as memory, environment(environ), ExitStack() as stack:
        notify = lambda stage: say(f"{name}: {stage}")  # noqa: E731 - one line
        services_running = stack.enter_context(Services(config, run, signals, notify, LOOPS[name]))
        stack.enter_context(timed_workers(services, run))
        steps = 0
        while services_running.training:
            services_running.tick()
            progress.update()
            if progress.steps > steps:
                steps = progress.steps
                say(f"{name}: step {steps} of {config.train.steps}")
            time.sleep(TICK_S)
    return Finished(name, run, close_open(run), memory.peak, time.monotonic() - began)


LOOPS: dict[VariantName, str] = {
    "blocking": "llmi.load.overlap.loops.BlockingLoop",
    "blocking_wide": "llmi.load.overlap.loops.BlockingLoop",
    "coupled": "llmi.load.overlap.loops.CoupledLoop",
    "llmi": LOOP,
}


def _widths(settings: OverlapSettings, services: ServiceSettings, name: VariantName) -> str:
    """The threads of the blocking variants, for the rollout process."""
    tools, judges = (TOOL_THREADS, JUDGE_THREADS) if name == "blocking" else widths(services, SOURCES)
    return f"{settings.batch * settings.n},{tools},{judges}"
