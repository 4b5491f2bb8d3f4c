"""`llmi bench overlap`: build the demo's parts, run the variants of both mixes, write numbers and pictures.

Invariants: settings, folder and environment are checked before anything is started; the numbers of a mix are
written when its variants have ended; `overlap.json` holds every number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.console.terminal import print_line
from coordinator.host.signals import StopSignals
from coordinator.watch.summary import read_metrics
from llmi.load.overlap.bound import Bound, bound, targets
from llmi.load.overlap.numbers import VariantNumbers, measure
from llmi.load.overlap.picture import draw
from llmi.load.overlap.run import VariantRun
from llmi.load.overlap.settings import OverlapSettings, VariantName
from llmi.load.overlap.trial import Finished, run_variant
from llmi.load.simulated.services import ServiceSettings
from llmi.load.targets import Target
from llmi.load.training import Parts, build_parts, refuse_shared_services
from policy.settings import METRICS
from workers.errors import Cause, ConfigError, InfrastructureFault

USUAL: tuple[VariantName, ...] = ("blocking", "blocking_wide", "coupled", "llmi")
# The first variant measures generation and training alone; the bound needs it in each mix.
FAST: tuple[VariantName, ...] = ("blocking_wide", "coupled", "llmi")
RESULT = "overlap.json"


@dataclass(frozen=True)
class Mix:
    """One mix of services: the numbers and the bound of each variant."""

    name: str
    services: ServiceSettings
    variants: Mapping[str, VariantNumbers]
    bounds: Mapping[str, Bound]
    picture: Path

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "services": self.services.model_dump(mode="json"),
            "variants": {name: numbers.document() for name, numbers in self.variants.items()},
            "bounds": {name: each.document() for name, each in self.bounds.items()},
            "picture": str(self.picture),
        }


def measure_mix(
    settings: OverlapSettings,
    name: str,
    services: ServiceSettings,
    finished: Sequence[Finished],
    folder: Path,
) -> Mix:
    """The numbers and the picture of one mix; its first variant is a blocking one."""
    runs = [_run(settings, services, variant) for variant in finished]
    return Mix(
        name=name,
        services=services,
        variants={run.name: measure(run) for run in runs},
        bounds={run.name: bound(runs[0], run, runs) for run in runs},
        picture=draw(runs, folder / f"{name}.png"),
    )


def _run(settings: OverlapSettings, services: ServiceSettings, variant: Finished) -> VariantRun:
    return VariantRun(
        name=variant.name,
        ledger=variant.ledger,
        metrics=read_metrics(variant.folder / METRICS),
        samples_per_step=settings.batch * settings.n,
        slots=services.slots,
        warm=settings.variants[variant.name].warm,
        repeats=settings.repeats,
        phased=variant.name.startswith("blocking"),
        peak_rss_bytes=variant.peak_rss_bytes,
        cool=settings.variants[variant.name].cool,
    )


def judge(usual: Mix, fast: Mix | None) -> tuple[Target, ...]:
    """Every target with its number."""
    return targets(usual.variants, usual.bounds["llmi"], fast.variants if fast else None)


def write(
    settings: OverlapSettings, mixes: Sequence[Mix], judged: Sequence[Target], seconds: float, folder: Path
) -> dict[str, Any]:
    """Write `overlap.json` into `folder` and return what is in it."""
    document = {
        "settings": settings.model_dump(mode="json"),
        "mixes": {mix.name: mix.document() for mix in mixes},
        "targets": [target.document() for target in judged],
        "seconds": seconds,
    }
    (folder / RESULT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def run(
    settings: OverlapSettings, folder: Path, fast: bool, signals: StopSignals, console: Console
) -> tuple[list[Mix], tuple[Target, ...], dict[str, Any]]:
    """Run everything in `folder`, which must not exist. Raises as `run_variant`."""
    began = time.monotonic()
    if folder.exists():
        raise ConfigError(f"--dir: {folder} exists already; name another, or remove it")
    refuse_shared_services()
    parts = build_parts(settings.seed, console)
    wanted = [("usual", settings.services, USUAL)]
    if fast:
        wanted.append(("fast", settings.services.fast(settings.fast), FAST))
    mixes: list[Mix] = []
    for name, services, variants in wanted:
        mixes.append(_mix(settings, name, services, variants, parts, folder, signals, console))
        judged = judge(mixes[0], mixes[1] if len(mixes) > 1 else None)
        document = write(settings, mixes, judged, time.monotonic() - began, folder)
    return mixes, judged, document


def _mix(
    settings: OverlapSettings,
    name: str,
    services: ServiceSettings,
    variants: tuple[VariantName, ...],
    parts: Parts,
    folder: Path,
    signals: StopSignals,
    console: Console,
) -> Mix:
    def notify(words: str) -> None:
        print_line(console, f"{time.strftime('%H:%M:%S')}  {name} mix, {words}", style="dim")

    finished: list[Finished] = []
    for variant in variants:
        finished.append(run_variant(settings, services, variant, parts, folder / name, signals, notify))
        notify(f"{variant} took {finished[-1].seconds:.0f} s")
    try:
        return measure_mix(settings, name, services, finished, folder)
    except ValueError as error:
        raise InfrastructureFault(Cause.INTERNAL, f"{folder / name}: {error}") from error
