"""Combinations of options that verl composes, and that would fail late or train wrongly (verl 0.9.1).

They are looked for in verl's whole configuration, wherever an option was set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policy.settings import TrainSettings


def combined_problems(train: TrainSettings, config: Any) -> Iterator[str]:
    """All problems, each with what to set instead."""
    yield from _batches(train, config)
    yield from _adapters(train, config)


def _batches(train: TrainSettings, config: Any) -> Iterator[str]:
    """`separate_async` makes one update of each batch; verl finds that out when it starts."""
    mini = config.actor_rollout_ref.actor.ppo_mini_batch_size
    if train.mode == "separate_async" and mini != train.batch_size:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size: {mini} must be train.batch_size "
            f"({train.batch_size}) with separate_async; leave it out, or set train.mode: colocate_async "
            "or sync"
        )
    elif not mini or mini < 0 or train.batch_size % mini:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size: {mini} does not divide train.batch_size "
            f"({train.batch_size}); set a divisor"
        )


def _adapters(train: TrainSettings, config: Any) -> Iterator[str]:
    """verl's checkpoint engines get the weights without adapters, unless those are merged, because
    `ActorRolloutRefWorker.update_weights` asks for the base weights.
    """
    model = config.actor_rollout_ref.model
    fsdp = "train.lora", model.lora_rank
    megatron = "train.verl.actor_rollout_ref.model.lora", model.lora.rank
    (section, rank), (unread, other) = (megatron, fsdp) if train.megatron else (fsdp, megatron)
    if not rank:
        if other:
            yield (
                f"{unread}.rank: verl does not read it with {'Megatron' if train.megatron else 'FSDP'}, "
                f"and would train all weights; set {section}.rank"
            )
        elif model.lora_adapter_path:
            yield f"actor_rollout_ref.model.lora_adapter_path: is not loaded with rank 0; set {section}.rank"
        return
    if not model.lora.merge:
        cure = f"set {section}.merge: true"
        if train.mode == "separate_async":
            yield (
                "train.lora.merge: false: verl sends separate generators the weights without their adapters, "
                f"so that they would never change; {cure}, or train.mode: colocate_async or sync"
            )
        elif train.device == "cpu":
            yield f"train.lora.merge: false: vLLM loads no adapters on a CPU; {cure}"
    engine = config.actor_rollout_ref.rollout.checkpoint_engine.backend or ""
    if train.mode == "separate_async" and engine.startswith("delta"):
        yield (
            f"actor_rollout_ref.rollout.checkpoint_engine.backend: {engine} sends the weights without their "
            "adapters; leave it out with LoRA"
        )
