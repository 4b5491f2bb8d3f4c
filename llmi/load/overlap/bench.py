"""`llmi bench overlap`: build the demo's parts, run the variants of both mixes, write numbers and pictures.

Invariants: settings, folder and environment are checked before anything is started; the numbers of a mix are
written when its variants have ended.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console

from coordinator.config.settings import RAY_ENV
from coordinator.console.terminal import print_line
from coordinator.host.signals import StopSignals
from llmi.demo.build import Parts as Built
from llmi.demo.build import build, cache_folder
from llmi.load.overlap import result as overlap_result
from llmi.load.overlap.result import Mix
from llmi.load.overlap.settings import OverlapSettings, ServiceSettings, VariantName
from llmi.load.overlap.trial import Finished, Parts, run_variant
from llmi.load.targets import Target
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.settings import REDIS_ENV

USUAL: tuple[VariantName, ...] = ("blocking", "blocking_wide", "coupled", "llmi")
# The first variant measures generation and training alone; the bound needs it in each mix.
FAST: tuple[VariantName, ...] = ("blocking_wide", "coupled", "llmi")


def read(file: Path | None) -> OverlapSettings:
    """The settings in `file`, or the default ones. Raises `ConfigError` that names the field."""
    if file is None:
        return OverlapSettings()
    try:
        return OverlapSettings.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config: {file} cannot be read ({error}); name a YAML file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file}: {where}: {first['msg']}; see `llmi bench overlap --dry-run`") from error


def run(
    settings: OverlapSettings, folder: Path, fast: bool, signals: StopSignals, console: Console
) -> tuple[list[Mix], tuple[Target, ...], dict[str, Any]]:
    """Run everything in `folder`, which must not exist. Raises as `run_variant`."""
    began = time.monotonic()
    if folder.exists():
        raise ConfigError(f"--dir: {folder} exists already; name another, or remove it")
    for variable in (REDIS_ENV, RAY_ENV):
        if os.environ.get(variable):
            raise ConfigError(
                f"{variable} is set, and each variant has a Redis and a Ray of its own; unset it"
            )
    built = Built(cache_folder(), "text", settings.seed)
    parts = Parts(build(built, console), built.prompts / "train.parquet")
    wanted = [("usual", settings.services, USUAL)]
    if fast:
        wanted.append(("fast", settings.services.fast(settings.fast), FAST))
    mixes: list[Mix] = []
    for name, services, variants in wanted:
        mixes.append(_mix(settings, name, services, variants, parts, folder, signals, console))
        judged = overlap_result.judge(mixes[0], mixes[1] if len(mixes) > 1 else None)
        document = overlap_result.write(settings, mixes, judged, time.monotonic() - began, folder)
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
    def say(words: str) -> None:
        print_line(console, f"{time.strftime('%H:%M:%S')}  {name} mix, {words}", style="dim")

    finished: list[Finished] = []
    for variant in variants:
        finished.append(run_variant(settings, services, variant, parts, folder / name, signals, say))
        say(f"{variant} took {finished[-1].seconds:.0f} s")
    try:
        return overlap_result.measure_mix(settings, name, services, finished, folder)
    except ValueError as error:
        raise InfrastructureFault(Cause.INTERNAL, f"{folder / name}: {error}") from error
