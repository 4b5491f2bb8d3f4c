"""Options of verl that depend on the engine that trains: FSDP2, or Megatron by `train.verl.model_engine`
(verl 0.9.1).
"""

from __future__ import annotations

from policy.settings import TrainSettings

ACTOR = "actor_rollout_ref.actor"
REF = "actor_rollout_ref.ref"


def engine_options(train: TrainSettings) -> dict[str, object]:
    """Options by name."""
    return _megatron(train) if train.megatron else _fsdp(train)


def _fsdp(train: TrainSettings) -> dict[str, object]:
    cuda = train.device == "cuda"
    return {
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.grad_clip": train.grad_clip,
        f"{ACTOR}.optim.lr_scheduler_type": train.schedule,
        f"{ACTOR}.optim.min_lr_ratio": train.min_lr_ratio,
        f"{ACTOR}.ulysses_sequence_parallel_size": train.sequence_parallel,
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": train.sequence_parallel,
        f"{ACTOR}.fsdp_config.seed": train.seed,
        f"{ACTOR}.fsdp_config.use_torch_compile": cuda,
        f"{ACTOR}.fsdp_config.param_offload": cuda and train.offload_params,
        f"{ACTOR}.fsdp_config.optimizer_offload": cuda and train.offload_optimizer,
        # The reference model has no optimiser.
        f"{REF}.fsdp_config.param_offload": cuda and train.offload_params,
        f"{REF}.fsdp_config.use_torch_compile": cuda,
    }


def _megatron(train: TrainSettings) -> dict[str, object]:
    return {
        f"{ACTOR}.optim.lr_decay_style": train.schedule,
        f"{ACTOR}.optim.min_lr": train.lr * train.min_lr_ratio,
        f"{ACTOR}.megatron.seed": train.seed,
        f"{ACTOR}.megatron.param_offload": train.offload_params,
        f"{ACTOR}.megatron.optimizer_offload": train.offload_optimizer,
    }
