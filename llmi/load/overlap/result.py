"""What `llmi bench overlap` leaves: `overlap.json` with every number, and a picture of each mix.

Invariant: made from the arms' folders, and from what is told of their processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.watch.summary import read_metrics
from llmi.load.overlap.bound import Bound, bound, targets
from llmi.load.overlap.numbers import ArmNumbers, measure
from llmi.load.overlap.picture import draw
from llmi.load.overlap.run import ArmRun
from llmi.load.overlap.settings import OverlapSettings, ServiceSettings
from llmi.load.overlap.trial import Finished
from llmi.load.targets import Target
from policy.settings import METRICS

RESULT = "overlap.json"


@dataclass(frozen=True)
class Mix:
    """One mix of services: what its arms achieved, and what each could have at best."""

    name: str
    services: ServiceSettings
    arms: Mapping[str, ArmNumbers]
    bounds: Mapping[str, Bound]
    picture: Path

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "services": self.services.model_dump(mode="json"),
            "arms": {name: numbers.document() for name, numbers in self.arms.items()},
            "bounds": {name: each.document() for name, each in self.bounds.items()},
            "picture": str(self.picture),
        }


def look(
    settings: OverlapSettings,
    name: str,
    services: ServiceSettings,
    finished: Sequence[Finished],
    folder: Path,
) -> Mix:
    """The numbers and the picture of one mix; its first arm is a blocking one."""
    runs = [_run(settings, services, arm) for arm in finished]
    return Mix(
        name=name,
        services=services,
        arms={run.name: measure(run) for run in runs},
        bounds={run.name: bound(runs[0], run, runs) for run in runs},
        picture=draw(runs, folder / f"{name}.png"),
    )


def _run(settings: OverlapSettings, services: ServiceSettings, arm: Finished) -> ArmRun:
    return ArmRun(
        name=arm.name,
        ledger=arm.ledger,
        metrics=read_metrics(arm.folder / METRICS),
        samples_per_step=settings.batch * settings.n,
        slots=services.slots,
        warm=settings.arms[arm.name].warm,
        repeats=settings.repeats,
        phased=arm.name.startswith("blocking"),
        peak_rss_bytes=arm.peak_rss_bytes,
        cool=settings.arms[arm.name].cool,
    )


def judge(usual: Mix, fast: Mix | None) -> tuple[Target, ...]:
    """Every number beside what is asked of it."""
    return targets(usual.arms, usual.bounds["ours"], fast.arms if fast else None)


def write(
    settings: OverlapSettings, mixes: Sequence[Mix], told: Sequence[Target], seconds: float, folder: Path
) -> dict[str, Any]:
    """Write `overlap.json` into `folder` and return what is in it."""
    document = {
        "settings": settings.model_dump(mode="json"),
        "mixes": {mix.name: mix.document() for mix in mixes},
        "targets": [target.document() for target in told],
        "seconds": seconds,
    }
    (folder / RESULT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document
