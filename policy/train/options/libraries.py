"""Modules that verl's workers import before they build the model (`actor_rollout_ref.model.external_lib`)."""

from __future__ import annotations

from policy.settings import TrainSettings
from policy.train.gradient.refusals import LOSSES

VISION_TEXT = "policy.train.vision_text"


def libraries(train: TrainSettings) -> list[str]:
    """Their names, in the order of import."""
    on_cpu = ["policy.cpu.gloo"] if train.device == "cpu" else []
    return [*on_cpu, LOSSES, *([VISION_TEXT] if train.modality == "vl" else [])]
