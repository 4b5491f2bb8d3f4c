"""`llmi bench staleness`: every arm with every seed, one run at a time; numbers and a picture.

Invariants:
- All arms of a seed run before the next seed, so that other load on the machine affects all arms.
- A finished run is in `curve.json` of its folder and is not repeated when the command is run again with the
  same folder; what an interrupted run left is removed first.
- A folder belongs to one set of settings.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.console.stages import Stages, duration
from coordinator.host.signals import StopSignals
from llmi.load.staleness.curve import Curve, Point
from llmi.load.staleness.numbers import ArmNumbers, measure, targets
from llmi.load.staleness.picture import draw
from llmi.load.staleness.settings import ArmName, StalenessSettings
from llmi.load.staleness.trial import run_arm
from llmi.load.targets import Target
from llmi.load.training import Parts, build_parts, refuse_shared_services
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.storage.atomic import save

SETTINGS, CURVE, RESULT, PICTURE = "settings.json", "curve.json", "staleness.json", "staleness.png"
POLICY_SEED = 1  # of the demo's parts, which all runs share

Curves = dict[ArmName, dict[int, Curve]]


def run(
    settings: StalenessSettings, folder: Path, signals: StopSignals, console: Console
) -> tuple[list[ArmNumbers], list[Target], dict[str, Any]]:
    """Run what `folder` lacks, and write the numbers of all. Raises as `run_arm`, or `ConfigError`."""
    began = time.monotonic()
    refuse_shared_services()
    _claim(settings, folder)
    parts = build_parts(POLICY_SEED, console)
    curves: Curves = {name: {} for name in settings.arms}
    wanted = list(_runs(settings))
    with Stages(console) as stages:
        for number, (name, seed) in enumerate(wanted):
            curves[name][seed] = _run(
                settings, name, seed, parts, folder, signals, stages, number / len(wanted), len(wanted)
            )
    numbers = measure(settings, curves)
    judged = targets(numbers)
    draw(settings, curves, folder / PICTURE)
    document = {
        "settings": settings.model_dump(mode="json"),
        "arms": {one.name: one.document() for one in numbers},
        "targets": [target.document() for target in judged],
        "seconds": time.monotonic() - began,
    }
    save(folder / RESULT, json.dumps(document, indent=1) + "\n")
    return numbers, judged, document


def _runs(settings: StalenessSettings) -> Iterator[tuple[ArmName, int]]:
    for seed in settings.seeds:
        for name in settings.arms:
            yield name, seed


def _claim(settings: StalenessSettings, folder: Path) -> None:
    """Make `folder`, or check that it was made for the same settings. Raises `ConfigError` if not."""
    file, own = folder / SETTINGS, settings.model_dump_json()
    if file.exists():
        if StalenessSettings.model_validate_json(file.read_text(encoding="utf-8")) != settings:
            raise ConfigError(f"--dir: {folder} was made with other settings; name another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--dir: {folder} exists and is not one of this benchmark; name another")
    folder.mkdir(parents=True, exist_ok=True)
    save(file, own)


def _run(
    settings: StalenessSettings,
    name: ArmName,
    seed: int,
    parts: Parts,
    folder: Path,
    signals: StopSignals,
    stages: Stages,
    share: float,
    runs: int,
) -> Curve:
    """One run, or what `folder` has of it."""
    place = (folder / f"seed-{seed}" / name).absolute()
    file = place / CURVE
    if file.exists():
        rows = json.loads(file.read_text(encoding="utf-8"))
        return Curve(tuple(Point(**row) for row in rows), settings.averaged)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    title = "training the arms"

    def step(done: int, reward: float | None) -> None:
        detail = f"seed {seed}, {name}: step {done} of at most {settings.max_steps}"
        if reward is not None:
            detail += f", reward {reward:.3f} of {settings.reward:g}"
        stages.step(title, share + done / settings.max_steps / runs, detail)

    stages.step(title, share, f"seed {seed}, {name}: starting")
    began = time.monotonic()
    try:
        curve = run_arm(settings, name, seed, parts, place, signals, step, lambda _stage: None)
    except ValueError as error:
        raise InfrastructureFault(Cause.INTERNAL, f"{place}: {error}") from error
    save(file, json.dumps(curve.document()) + "\n")
    found = curve.reached(settings.reward)
    end = f"reached {settings.reward:g} at step {found.steps}" if found else "did not reach the reward"
    stages.notify(f"seed {seed}, {name}: {end}, {duration(time.monotonic() - began)}")
    return curve
