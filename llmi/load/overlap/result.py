"""The results of `llmi bench overlap`: `overlap.json` with every number, and a picture of each mix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.watch.summary import read_metrics
from llmi.load.overlap.bound import Bound, bound, targets
from llmi.load.overlap.numbers import VariantNumbers, measure
from llmi.load.overlap.picture import draw
from llmi.load.overlap.run import VariantRun
from llmi.load.overlap.settings import OverlapSettings, ServiceSettings
from llmi.load.overlap.trial import Finished
from llmi.load.targets import Target
from policy.settings import METRICS

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
