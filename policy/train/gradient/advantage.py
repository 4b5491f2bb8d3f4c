"""GRPO's advantage for losses that verl divides by the slots of a batch (verl 0.9.1, `register_adv_est`).

A masked sample has no trajectory. verl fills its slot with padding that has no token to train on, and its
seq-mean modes still divide by all slots, so that each masked sample would make the step smaller.

Importing this module registers it.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est

from policy.train.gradient.refusals import OVER_VALID


@register_adv_est(OVER_VALID)
def grpo_over_valid(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, config: Any, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's GRPO advantage, times all slots over the valid ones; and the returns.

    A slot is valid when it has a token to train on, so one that `rollout_rs` rejected is not. `index`: the
    group of each row.
    """
    advantages, returns = compute_grpo_outcome_advantage(
        token_level_rewards,
        response_mask,
        index,
        norm_adv_by_std_in_grpo=config.get("norm_adv_by_std_in_grpo", True),
    )
    valid = int(response_mask.any(dim=-1).sum())
    return advantages * (len(response_mask) / max(1, valid)), returns
