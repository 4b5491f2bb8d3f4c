"""Write a checkpoint of a run as a Hugging Face folder.

Invariant: a folder of that name is complete, since it is written beside its place and renamed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.console.terminal import Notify
from policy.train import kept_checkpoints
from workers.errors import ConfigError
from workers.process.parent_death import start_child

EXPORTS = "exports"  # below the run
ADAPTER = "lora_adapter"  # verl's name
LAST, BEST = "last", "best"
LOG_LINES = 12


class ExportFailed(RuntimeError):
    """verl or peft could not merge the checkpoint. The message ends with their last output."""


@dataclass(frozen=True)
class Export:
    """A checkpoint and how it is written. `merge_adapter`: adapters are merged into the weights."""

    run: Path
    step: int
    merge_adapter: bool

    @property
    def actor(self) -> Path:
        return kept_checkpoints.weights(self.run, self.step)

    @property
    def place(self) -> Path:
        """The folder that is written when no other is named."""
        with_adapter = (self.actor / "lora_train_meta.json").exists() and not self.merge_adapter
        return self.run / EXPORTS / f"step-{self.step}{'-adapter' if with_adapter else ''}"


def chosen_step(run: Path, wanted: str) -> int:
    """The step of `last`, `best` or a number. Raises `ConfigError` unless the run has such a checkpoint."""
    there = kept_checkpoints.steps(run)
    if not there:
        raise ConfigError(f"{run}: there is no checkpoint yet; train.save_every is the steps between two")
    if wanted == LAST:
        return there[-1]
    names = f"{', '.join(map(str, there))}, {LAST} or {BEST}"
    if wanted == BEST:
        if (step := kept_checkpoints.best(run)) is None:
            raise ConfigError(f"{run}: its metrics have no reward, so the best is not known; name {names}")
        return step
    if not wanted.isdecimal() or int(wanted) not in there:
        raise ConfigError(f"{run}: there is no checkpoint of step {wanted}; name {names}")
    return int(wanted)


def write(export: Export, folder: Path, notify: Notify) -> None:
    """Write the folder. Raises `ConfigError` when it exists, `ExportFailed`."""
    if folder.exists():
        raise ConfigError(f"{folder}: exists; remove it, or name another folder with --out")
    if not (export.actor / "fsdp_config.json").is_file():
        raise ConfigError(
            f"{export.actor}: was not written by FSDP; export it where Megatron is installed, with "
            f"python -m verl.model_merger merge --backend megatron --local_dir {export.actor} --target_dir "
            f"{folder}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model, log = beside / "model", beside / "log"
        notify(f"merging the shards of step {export.step}")
        merge = ("verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(export.actor))
        _run([*merge, "--target_dir", str(model)], log)
        if export.merge_adapter and (model / ADAPTER).is_dir():
            notify("merging the adapters into the weights")
            _run(["coordinator.export.adapter", str(model), str(model / ADAPTER)], log)
        model.rename(folder)
    finally:
        shutil.rmtree(beside)


def _run(module: Sequence[str], log: Path) -> None:
    """Run a module in a process of its own, without GPUs: a run may be using them. It ends with this one."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with start_child([sys.executable, "-m", *module], log=log, env=env) as process:
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C too: no merge may go on unseen
            process.kill()
            raise
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        raise ExportFailed(f"{module[0]} ended with code {code}:\n" + "\n".join(lines))
