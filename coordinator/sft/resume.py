"""Resuming a supervised training from its last checkpoint.

Invariant: a resumed training takes the documents, and the steps after its checkpoint, that it would have
taken.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.config.settings import RunConfig
from coordinator.state import resume
from coordinator.state.resume import changed, cut_metrics, finished, recorded
from policy.settings import checkpoint
from policy.sft.settings import EXAMPLES
from policy.train import kept_checkpoints
from workers.errors import ConfigError

# Besides what every run may change: sections that are not read, and the sources, since the folder has the
# documents.
MAY_CHANGE = (
    *resume.MAY_CHANGE,
    "blobs", "tools", "reward", "judges", "author", "rubric", "data", "sft.save_every", "sft.source",
    "sft.min_reward", "sft.top", "sft.per_prompt",
)  # fmt: skip


def problems(config: RunConfig, run: Path) -> list[str]:
    """Why the training cannot be resumed with this configuration."""
    try:
        before = recorded(run)
    except ConfigError as error:
        return [str(error)]
    if not (run / EXAMPLES).is_file():
        return [f"{run}: is no run of llmi sft; resume it with llmi train --resume, or name another"]
    if finished(run):
        return [f"{run}: this run is finished; there is nothing to resume"]
    return changed(config, before, MAY_CHANGE)


def last_step(run: Path) -> int:
    """The step of the last checkpoint; 0 for none."""
    return max(kept_checkpoints.steps(run), default=0)


def rewind(run: Path, per_epoch: int) -> int:
    """Make the folder ready to train on from its last checkpoint, and return its step.

    verl 0.9.1 saves the place in the data before it knows that an epoch has ended; loaded at the end of an
    epoch, it would skip the next one. Without a place it begins the epoch, which is right there.
    `tests/integration/test_sft.py` fails without this.
    """
    step = last_step(run)
    if step and step % per_epoch == 0:
        for place in checkpoint(run, step).glob("data_*.pt"):
            place.unlink()
    cut_metrics(run, step)
    return step
