"""A rehearsal: make the model tiny, take local tools and judges, and run two steps by the path of every run.

Invariants:
- What it finds is what verl, vLLM, the tokenizer and the data refuse; a failure is raised as that of a run.
- It uses only this machine: RAY_ADDRESS and LLMI_REDIS_URL have no effect.
- The tiny model is gone at the end. The run's folder stays.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from coordinator.check import folders, inputs, options
from coordinator.config import parts
from coordinator.config.settings import RAY_ENV, RunConfig, load
from coordinator.console.stages import Stages
from coordinator.host.environment import environment
from coordinator.host.processes import MemoryWatch
from coordinator.host.signals import StopSignals
from coordinator.rehearse import program, tiny_model
from coordinator.rehearse.changes import HERE, STEPS, rehearsed
from coordinator.rehearse.cpu_options import by_device
from coordinator.rehearse.long_prompts import long_prompts
from coordinator.rehearse.unrehearsed import Unrehearsed
from coordinator.run.launch import launch
from coordinator.watch.summary import Summary
from policy.settings import checkpoint
from workers.errors import ConfigError
from workers.settings import REDIS_ENV
from workers.storage.cache import cache_folder


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal that passed: the run's summary, and what was not rehearsed."""

    summary: Summary
    left_out: list[Unrehearsed]


def rehearse(
    config: RunConfig, runs: Path, console: Console, signals: StopSignals, memory: MemoryWatch, began: float
) -> Rehearsal:
    """Rehearse `config` in `runs/<name>`. `began`: when the command started (monotonic seconds).

    Raises `ConfigError` for what is wrong with the configuration, its model or its data; the errors of
    `coordinator.rehearse.program.run` and of `coordinator.run.launch.launch`; `RuntimeError` when a step or
    the checkpoint is missing in the end.
    """
    _check(config, runs / config.name)
    local = parts.find(parts.DEMO, "--rehearse")
    services = load(*local.services(False, False, console))
    outside = [Unrehearsed(name, "", HERE) for name in (RAY_ENV, REDIS_ENV) if os.environ.get(name)]
    with (
        environment({RAY_ENV: None, REDIS_ENV: None}),
        tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{config.name}-") as work,
    ):
        with Stages(console) as stages:
            stages.step("making the tiny model")
            model = _tiny(config.train.model, Path(work) / "model")
            changed, fields = rehearsed(config, model, services)
            stages.step("counting the tokens of the prompts")
            fields += long_prompts(config, changed.train.prompt_tokens, model)
        summary = launch(changed, runs, console, signals, memory, began)
    _check_end(summary, runs / config.name)
    return Rehearsal(summary, [*outside, *fields, *by_device(config.train, changed.train)])


def _check(config: RunConfig, run: Path) -> None:
    """Raise `ConfigError` for problems that are found before anything is built."""
    problems = [
        *folders.run_folder(run),
        *folders.cache(cache_folder()),
        *options.problems(config, run),
        *(inputs.unbuilt(config) or [*inputs.model(config), *_absent(config)]),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _absent(config: RunConfig) -> list[str]:
    files = (*config.data.train, *config.data.test)
    return [f"data: {file} does not exist; name a Parquet file" for file in files if not Path(file).exists()]


def _tiny(model: str, folder: Path) -> Path:
    program.run(
        tiny_model.__name__,
        [str(Path(model).expanduser()), str(folder)],
        failed=f"train.model: {model} cannot be made tiny",
        late=f"train.model: making {model} tiny; if it is a hub id, run `hf download {model} --exclude "
        "'*.safetensors'`, and name that folder with train.model=FOLDER",
    )
    return folder


def _check_end(summary: Summary, run: Path) -> None:
    if summary.steps != STEPS:
        raise RuntimeError(f"the rehearsal ended after {summary.steps} of {STEPS} steps; see {run / 'logs'}")
    if not checkpoint(run, STEPS).is_dir():
        raise RuntimeError(f"the rehearsal left no checkpoint: {checkpoint(run, STEPS)} is missing")
