"""Checkpoints of a run on the disk: which exist, which is the best, and what of older ones is removed.

The files are those of verl 0.9.1, which itself removes only weights and optimiser: the snapshots of its
transfer queue would stay for ever, and after a resume it does not know the checkpoints from before.

Invariants:
- The two newest checkpoints are whole. A run resumes from the last, and from the one before if the machine
  died before the ledger's entry of the last was on the disk.
- A run cannot resume from a checkpoint without `data.pt`, which is the first file that is removed.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path

from policy.settings import CHECKPOINTS, METRICS, checkpoint
from policy.train.evaluation.result import REWARD, UNFINISHED, VERSION

SCORE = "critic/score/mean"
SCORE_STEPS = 10  # a single step is too noisy to compare checkpoints
WHOLE = 2
DATA = "data.pt"
# Of FSDP, and of Megatron.
OPTIMISER = ("optim_world_size_*", "extra_state_world_size_*", "optimizer", "extra")
_PREFIX = "global_step_"
_REMOVED = "removed_"


def steps(run: Path) -> list[int]:
    """The steps with a complete checkpoint that has at least its weights, in order."""
    return [step for step in _folders(run) if weights(run, step).is_dir()]


def weights(run: Path, step: int) -> Path:
    """The folder of verl's shards: `actor`, or for `llmi sft` that of the step itself."""
    folder = checkpoint(run, step)
    return folder if (folder / "fsdp_config.json").is_file() else folder / "actor"


def resumable(run: Path, step: int) -> bool:
    """Whether the checkpoint still has all that a resume reads."""
    folder = checkpoint(run, step)
    return (folder / "actor").is_dir() and (folder / DATA).is_file()


def best(run: Path) -> int | None:
    """The checkpoint with the highest reward in its evaluation; None without metrics.

    An evaluation with unfinished documents does not count: the short ones end first. If no checkpoint's
    weights were evaluated, that with the highest mean training reward, over its step and the nine before.
    verl writes the metrics of a step after its checkpoint, so one that has just been saved is not compared.
    """
    there = steps(run)
    evaluated = _values(run, REWARD, VERSION)
    rated = {step: evaluated[step] for step in there if step in evaluated}
    if not rated:
        scores = _values(run, SCORE)
        rated = {step: _mean(scores, step) for step in there if step in scores}
    return max(rated, key=lambda step: (rated[step], step)) if rated else None


def prune(run: Path, keep: int) -> None:
    """Keep the `keep` newest checkpoints and the best one, all but the two newest as weights alone."""
    for left in (run / CHECKPOINTS).glob(f"{_REMOVED}*"):
        shutil.rmtree(left)
    there = steps(run)
    kept = {*there[-keep:], best(run)}
    for step in _folders(run):
        folder = checkpoint(run, step)
        if step in there[-WHOLE:]:
            continue
        if step in kept:
            _reduce(folder)
        else:
            shutil.rmtree(folder.rename(folder.with_name(f"{_REMOVED}{folder.name}")))


def _folders(run: Path) -> list[int]:
    """The steps that have a folder, up to the last complete checkpoint."""
    parent = run / CHECKPOINTS
    try:
        last = int((parent / "latest_checkpointed_iteration.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    names = [path.name.removeprefix(_PREFIX) for path in parent.glob(f"{_PREFIX}*")]
    return sorted(step for step in map(int, filter(str.isdecimal, names)) if step <= last)


def _reduce(folder: Path) -> None:
    """Remove everything but the weights."""
    (folder / DATA).unlink(missing_ok=True)
    found = [path for pattern in OPTIMISER for path in (folder / "actor").glob(pattern)]
    for path in (*found, folder / "transfer_queue"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _values(run: Path, name: str, by: str = "") -> dict[int, float]:
    """A metric by step, or by the metric `by`. Skipped are a torn line, one without a number, and an
    evaluation that did not end.
    """
    path = run / METRICS
    values = {}
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError):
            row = json.loads(line)
            if math.isfinite(value := row["data"][name]) and not (by and row["data"].get(UNFINISHED)):
                values[row["data"][by] if by else row["step"]] = value
    return values


def _mean(scores: dict[int, float], step: int) -> float:
    values = [scores[at] for at in range(step - SCORE_STEPS + 1, step + 1) if at in scores]
    return sum(values) / len(values)
