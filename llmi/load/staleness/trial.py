"""One run of `llmi bench staleness`: GRPO of the tiny policy until its reward is reached.

Real: verl, vLLM, the tiny policy, queues, Celery workers, rules and judges. Simulated: service times and
pictures (`timed_jobs`). The run starts below the checks of `llmi train`, which refuse an uncorrected one.

Invariant: no process of a run is left when the next starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from coordinator.config.settings import RunConfig, load
from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.run.services import Services
from coordinator.watch.progress import REWARD, Progress
from coordinator.watch.summary import read_metrics
from llmi.load.overlap.numbers import STALENESS, STALENESS_WORST
from llmi.load.overlap.run import finished_steps
from llmi.load.simulated.timed_workers import timed_workers
from llmi.load.staleness.curve import Curve, Point, averaged
from llmi.load.staleness.settings import ARMS, ArmName, StalenessSettings
from llmi.load.training import Parts, measured_run
from policy.ledger.reader import read_ledger
from policy.settings import LOOP, METRICS
from policy.train.gradient.metrics import CLIPPED, EFFECTIVE

COUPLED = "llmi.load.overlap.loops.CoupledLoop"
VALID = "validity/n_valid"
TICK_S = 0.5


def configure(settings: StalenessSettings, name: ArmName, seed: int, parts: Parts) -> RunConfig:
    """The configuration of a run, made of the demo's."""
    arm = ARMS[name]
    return load(
        "demo",
        {
            **measured_run(parts),
            "name": f"{name}-{seed}",
            "train.seed": seed,
            "train.steps": settings.max_steps,
            "train.batch_size": settings.batch,
            "train.n": settings.n,
            "train.lr": settings.lr,
            "train.response_tokens": settings.response_tokens,
            "train.old_log_prob": "recompute",
            "train.rollout_is": "token" if arm.corrected else None,
            "train.max_staleness": arm.max_staleness,
            "train.warmup_batches": arm.batches,
            "train.admission": "adaptive" if arm.adaptive else "fixed",
        },
    )


def run_arm(
    settings: StalenessSettings,
    name: ArmName,
    seed: int,
    parts: Parts,
    run: Path,
    signals: StopSignals,
    step: Callable[[int, float | None], None],
    notify: Notify,
) -> Curve:
    """Run it in the folder `run`. `step`: called with the steps done and the averaged reward.

    Raises as `Services` and `Trainer` do, or `ValueError` when too few steps were finished.
    """
    config = configure(settings, name, seed, parts)
    config = config.model_copy(update={"blobs": config.blobs.model_copy(update={"url": str(run / "blobs")})})
    progress, seen = Progress(run), 0
    with ExitStack() as stack:
        loop = COUPLED if ARMS[name].coupled else LOOP
        services = stack.enter_context(Services(config, run, signals, notify, loop))
        stack.enter_context(timed_workers(settings.services, run))
        while services.training:
            services.tick()
            progress.update()
            if progress.steps > seen:
                seen = progress.steps
                means = averaged(progress.rewards, settings.averaged)
                step(seen, means[-1] if means else None)
                if means and max(means) >= settings.reward:
                    break
            time.sleep(TICK_S)
    return read_curve(run, settings.averaged)


def read_curve(run: Path, length: int) -> Curve:
    """The curve of a run that has ended, from its ledger and metrics. Raises `ValueError` as `Curve` does, or
    when a metric is missing."""
    steps = finished_steps(read_ledger(run), read_metrics(run / METRICS))

    def optional(row: int, name: str) -> float | None:
        return steps[row].metric(name) if name in steps[row].metrics else None

    points = [
        Point(
            step=one.number,
            seconds=one.ended - steps[0].began,
            samples=int(one.metric(VALID)),
            reward=one.metric(REWARD),
            staleness=one.metric(STALENESS),
            staleness_worst=one.metric(STALENESS_WORST),
            effective=optional(row, EFFECTIVE),
            clipped=optional(row, CLIPPED),
        )
        for row, one in enumerate(steps)
    ]
    return Curve(tuple(points), length)
