"""Record each checkpoint in the ledger (verl 0.9.1, `trainer.checkpoint_callback_class`).

Invariant: a checkpoint is recorded only after all its files are on the disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback


class CheckpointRecorder(CheckpointCallback):
    """Syncs a checkpoint to the disk, then has the sampler record it."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any
    ) -> None:
        if not async_save:
            sync(Path(checkpoint_dir))
            trainer.replay_buffer.saved(global_step)


def sync(folder: Path) -> None:
    """Call fsync on everything below `folder`."""
    for path in (folder, *folder.rglob("*")):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
