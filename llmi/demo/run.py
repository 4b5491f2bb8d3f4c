"""`llmi demo`: build what is missing, then run GRPO on it, by the same path as `llmi train`.

Invariant: only paths, seed and number of steps differ from a training run.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from rich.console import Console

from coordinator.config.files import SHIPPED
from coordinator.config.settings import RunConfig, load
from coordinator.host.processes import MemoryWatch
from coordinator.host.signals import StopSignals
from coordinator.watch.summary import Summary
from llmi.demo.build import Kind, Parts, build, cache_folder

TRAIN_ROWS = 1024  # what `write_dataset` writes


def demo(
    kind: Kind, name: str, seed: int, steps: int | None, runs: Path, console: Console
) -> tuple[RunConfig, Summary]:
    """Build and run. Raises as `coordinator.run.launch.launch`, or `BuildFailed`."""
    began = time.monotonic()
    with StopSignals() as signals, MemoryWatch() as memory:
        from coordinator.check import folders, preflight
        from coordinator.run.launch import launch
        from workers.errors import ConfigError

        parts = Parts(cache_folder(), kind, seed)
        # Building takes minutes: arguments and environment are checked before.
        unbuilt = configure(parts, Path("unbuilt"), name, steps)
        if problems := [*folders.cache(parts.cache), *preflight.surroundings(unbuilt, runs / name)]:
            raise ConfigError("\n".join(problems))
        config = configure(parts, build(parts, console), name, steps)
        return config, launch(config, runs, console, signals, memory, began)


def resume_demo(name: str, steps: int | None, runs: Path, console: Console) -> tuple[RunConfig, Summary]:
    """Resume the demo run of this name with its own configuration. `steps`: another number of steps.

    Raises as `coordinator.run.launch.launch`.
    """
    began = time.monotonic()
    with StopSignals() as signals, MemoryWatch() as memory:
        from coordinator.run.launch import launch
        from coordinator.state.resume import recorded

        config = recorded(runs / name).model_copy(update={"name": name})
        if steps is not None:
            config = config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})
        return config, launch(config, runs, console, signals, memory, began, resume=True)


def configure(parts: Parts, policy: Path, name: str, steps: int | None) -> RunConfig:
    """The shipped demo configuration with the built parts put in."""
    file, values = overrides(parts, policy)
    values["name"] = name
    if steps is not None:
        values["train.steps"] = steps
    config = load(file, values)
    wanted = (config.train.steps or 0) * config.train.batch_size
    return load(file, {**values, "train.epochs": math.ceil(wanted / TRAIN_ROWS) + 1})


def overrides(parts: Parts, policy: Path) -> tuple[Path, dict[str, object]]:
    """The shipped demo configuration, and the dotted fields that name the built parts.

    The file is named by its path: never a file of that name in the working directory.
    """
    suffix = "_mm" if parts.kind == "vl" else ""
    return SHIPPED / ("demo_vl.yaml" if parts.kind == "vl" else "demo.yaml"), {
        "train.model": str(policy),
        "train.seed": parts.seed,
        "data.train": [str(parts.prompts / f"train{suffix}.parquet")],
        "data.test": [str(parts.prompts / f"test{suffix}.parquet")],
        "tools.search.library": str(parts.library),
        "tools.diffusion.model": str(parts.image_model),
        "tools.edit.model": str(parts.image_model),
    }
