"""verl's losses, measured: `measured_NAME` is the loss NAME, and also reports the ratio to the sampler.

With `old_log_prob: rollout`, verl 0.9.1 reports nothing about the ratio (its V1 trainer skips that in bypass
mode), and only the worker that computes the loss knows the new log-probabilities.
`tests/unit/policy/train/test_verl_v1.py` fails when verl reports it itself; then this module can go.

Importing it registers them. verl's workers import it through `actor_rollout_ref.model.external_lib`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss

from policy.train.gradient.metrics import SUMS
from policy.train.gradient.refusals import MEASURED

MAX_LOG_RATIO = 20.0  # as in verl's losses


def measured(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The same loss, with the sums of `ratio_sums`, and of the tokens that it clipped, among its metrics."""

    @functools.wraps(loss)
    def compute(
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        value, metrics = loss(
            old_log_prob=old_log_prob,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=config,
            rollout_is_weights=rollout_is_weights,
        )
        sums = ratio_sums(log_prob.detach() - old_log_prob, response_mask.bool(), config)
        share = metrics.get("actor/pg_clipfrac", 0.0) + metrics.get("actor/pg_clipfrac_lower", 0.0)
        sums["clipped"] = share * sums["tokens"]
        return value, metrics | {f"{SUMS}{name}": total for name, total in sums.items()}

    return compute


def ratio_sums(log_ratio: torch.Tensor, mask: torch.Tensor, config: Any) -> dict[str, float]:
    """Sums over the tokens of a micro-batch, which may have none. `log_ratio`: policy over sampler.

    `weight` is the ratio, truncated at `clip_ratio_c`; `above` and `below` count ratios outside the range
    in which the loss does not clip.
    """
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    log_ratio = log_ratio[mask].float()
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    weight = ratio.clamp(max=config.clip_ratio_c)
    sums = {
        "tokens": mask.sum(),
        "weight": weight.sum(),
        "weight_squared": weight.square().sum(),
        "above": (ratio > 1 + high).sum(),
        "below": (ratio < 1 - low).sum(),
        "kl": -log_ratio.sum(),
        "k3": (ratio - 1 - log_ratio).sum(),
    }
    return {name: float(total) for name, total in sums.items()}


for name, verls in tuple(POLICY_LOSS_REGISTRY.items()):
    if not name.startswith(MEASURED):
        register_policy_loss(f"{MEASURED}{name}")(measured(verls))
