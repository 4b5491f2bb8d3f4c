"""Options of verl for what is updated and how far: KL and LoRA (verl 0.9.1)."""

from __future__ import annotations

from policy.settings import TrainSettings

MODEL = "actor_rollout_ref.model"
ACTOR = "actor_rollout_ref.actor"


def update_options(train: TrainSettings) -> dict[str, object]:
    """Options by name."""
    return {**_kl(train), **_lora(train)}


def _kl(train: TrainSettings) -> dict[str, object]:
    kl = train.kl
    return {
        "algorithm.use_kl_in_reward": kl.form == "reward",
        "algorithm.kl_penalty": kl.estimator,
        "algorithm.kl_ctrl.kl_coef": kl.coef,
        f"{ACTOR}.use_kl_loss": kl.form == "loss",
        f"{ACTOR}.kl_loss_coef": kl.coef,
        f"{ACTOR}.kl_loss_type": kl.estimator,
    }


def _lora(train: TrainSettings) -> dict[str, object]:
    lora = train.lora
    if not lora.rank:
        return {}
    return {
        f"{MODEL}.lora_rank": lora.rank,
        f"{MODEL}.lora_alpha": lora.alpha,
        f"{MODEL}.target_modules": lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        f"{MODEL}.lora.merge": lora.merge,
    }
