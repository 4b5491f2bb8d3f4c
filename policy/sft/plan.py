"""How many steps the training has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy.settings import TrainSettings
from policy.sft.settings import SftSettings
from workers.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """`per_epoch`: steps of a pass over the documents. `epochs`: passes, also one that is cut short."""

    steps: int
    per_epoch: int
    epochs: int


def plan(examples: int, train: TrainSettings, sft: SftSettings) -> Plan:
    """The plan for so many examples. Raises `ConfigError` when they do not fill a batch.

    As verl's trainer counts: each data-parallel rank gets the same number of examples, and an epoch has whole
    batches only.
    """
    ranks = train.trainer_gpus // train.sequence_parallel
    if sft.batch_size % ranks:
        raise ConfigError(
            f"sft.batch_size: {sft.batch_size} must be a multiple of the {ranks} data-parallel ranks"
        )
    per_epoch = (examples // ranks) // (sft.batch_size // ranks)
    if not per_epoch:
        raise ConfigError(
            f"sft.batch_size: {sft.batch_size} is more than the {examples} documents that are chosen; lower "
            "it, or choose more documents (sft.source, sft.min_reward, sft.top, sft.per_prompt)"
        )
    steps = sft.steps or sft.epochs * per_epoch
    return Plan(steps, per_epoch, math.ceil(steps / per_epoch))
