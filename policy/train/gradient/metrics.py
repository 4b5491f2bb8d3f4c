"""How far the samples of a step were from the policy: metrics with the same names in both modes.

- `old_log_prob: recompute`: verl computes `rollout_corr/*` from the weights of `rollout_is`.
- `old_log_prob: rollout`: computed here from the sums of `policy.train.gradient.losses`, under verl's names.

Pure; imports no library.
"""

from __future__ import annotations

from typing import Any

SUMS = "rollout_corr/"  # prefix in a loss; verl puts "actor/" before it
EFFECTIVE = "rollout_corr/rollout_is_eff_sample_size"
CLIPPED = "rollout_corr/clipped_fraction"
TRUNCATED = "rollout_corr/rollout_is_ratio_fraction_high"


def complete(metrics: dict[str, Any]) -> None:
    """Replace the sums of the losses by verl's metrics, and add `CLIPPED`.

    `CLIPPED` is the share of tokens with a ratio that was cut: truncated by `rollout_is`, or without a
    gradient because the loss clipped it.

    The sums may be means over micro-batches, as verl averages them: only their quotients are used.
    """
    sums = {key: metrics.pop(key) for key in tuple(metrics) if key.startswith(f"actor/{SUMS}")}
    if not sums:
        if TRUNCATED in metrics:
            metrics[CLIPPED] = metrics[TRUNCATED]
        return
    tokens, weight, squared, above, below, kl, k3, clipped = (
        sums[f"actor/{SUMS}{name}"]
        for name in ("tokens", "weight", "weight_squared", "above", "below", "kl", "k3", "clipped")
    )
    if not tokens:
        return
    metrics |= {
        "rollout_corr/rollout_is_mean": weight / tokens,
        EFFECTIVE: weight**2 / (squared * tokens),
        TRUNCATED: above / tokens,
        "rollout_corr/rollout_is_ratio_fraction_low": below / tokens,
        "rollout_corr/kl": kl / tokens,
        "rollout_corr/k3_kl": k3 / tokens,
        CLIPPED: clipped / tokens,
    }
