"""Record each checkpoint in the ledger, and remove old ones (verl 0.9.1,
`trainer.checkpoint_callback_class`).

Invariant: a checkpoint is recorded only after all its files are on the disk.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from policy.train.kept_checkpoints import prune

logger = logging.getLogger(__name__)


class CheckpointRecorder(CheckpointCallback):
    """Syncs a checkpoint to the disk, has the sampler record it, then prunes the older ones."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any
    ) -> None:
        if async_save:
            return
        sync(Path(checkpoint_dir))
        trainer.replay_buffer.saved(global_step)
        try:
            prune(Path(checkpoint_dir).parents[1], self.config.trainer.keep_checkpoints)
        except OSError as error:  # training goes on; the next checkpoint prunes again
            logger.warning("an old checkpoint could not be removed: %s", error)


def sync(folder: Path) -> None:
    """Call fsync on everything below `folder`."""
    for path in (folder, *folder.rglob("*")):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
