"""Refuse options of verl with which the gradient would not be what it claims to be (verl 0.9.1).

Invariants:
- The merged options of verl are checked, so an option is refused wherever it was set.
- verl is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OVER_VALID = "grpo_over_valid"  # the advantage estimator of `policy.train.gradient.advantage`
LOSSES = "policy.train.gradient.losses"
MEASURED = "measured_"  # prefix of the losses of that module
NO_RATIO = ("gpg", "dro")  # losses without a ratio to the old policy
SAPO_MEAN = "seq-mean-token-mean"  # `sapo` averages so, whatever `loss_agg_mode` is


def estimator(aggregation: str) -> str:
    """The advantage estimator for verl's `loss_agg_mode`.

    verl divides the loss by the slots of a batch in its seq-mean modes, and by the tokens in token-mean.
    Only slots count masked samples.
    """
    return OVER_VALID if aggregation.startswith("seq-mean") else "grpo"


def gradient_problems(options: Any) -> list[str]:
    """What is wrong with verl's composed configuration, each with the setting to change."""
    return [*_inputs(options), *_penalty(options), *_correction(options), *_divisor(options)]


def _inputs(options: Any) -> Iterator[str]:
    loss = options.actor_rollout_ref.actor.policy_loss.loss_mode
    if not options.actor_rollout_ref.rollout.calculate_log_probs:
        yield (
            "actor_rollout_ref.rollout.calculate_log_probs: without the sampler's log-probabilities verl "
            "corrects nothing; leave it true"
        )
    if loss.startswith(MEASURED) and LOSSES not in (options.actor_rollout_ref.model.external_lib or ()):
        yield (
            f"actor_rollout_ref.model.external_lib: must contain {LOSSES}, which registers {loss}; add "
            "it to the list"
        )


def _penalty(options: Any) -> Iterator[str]:
    actor = options.actor_rollout_ref.actor
    if actor.use_kl_loss and actor.kl_loss_type in ("kl", "k1"):
        yield (
            f"train.kl.estimator: the gradient of {actor.kl_loss_type} in the loss has mean 0, so that the "
            "penalty has no effect; set train.kl.estimator: mse or low_var_kl, or "
            "train.kl.form: reward"
        )


def _correction(options: Any) -> Iterator[str]:
    correction = options.algorithm.rollout_correction
    loss = options.actor_rollout_ref.actor.policy_loss.loss_mode.removeprefix(MEASURED)
    mode = options.trainer.v1.trainer_mode
    stale = mode.rpartition("_")[2] != "sync"
    if not correction.bypass_mode:
        name, value = ("rollout_is_threshold", 2.0) if correction.rollout_is else ("rollout_is", "token")
        if stale and not correction[name]:
            yield (
                f"train.{name}: {mode} trains on samples that older weights wrote, and null leaves them "
                "uncorrected, since the ratio to a recomputed old policy is 1 everywhere; set "
                f"train.{name}: {value}, train.old_log_prob: rollout, or train.mode: sync"
            )
        return
    unused = [name for name in ("rollout_is", "rollout_rs") if correction[name]]
    if unused:
        yield (
            f"train.{', train.'.join(unused)}: no effect with train.old_log_prob: rollout, because verl then "
            "computes neither weights nor rejections; set train.old_log_prob: recompute, or leave "
            f"{' and '.join(unused)} out"
        )
    if loss == "gspo":
        yield (
            "train.old_log_prob: gspo clips the mean ratio of a document in a range of some 1e-4, so that "
            "with rollout, where the ratio is to the sampler, nearly every document is clipped; set "
            "train.old_log_prob: recompute"
        )
    if stale and loss in NO_RATIO:
        yield (
            f"train.old_log_prob: the loss {loss} has no ratio to the sampler, so that rollout leaves stale "
            "samples uncorrected; set train.old_log_prob: recompute, which multiplies it by train.rollout_is"
        )


def _divisor(options: Any) -> Iterator[str]:
    aggregation = options.actor_rollout_ref.actor.loss_agg_mode
    loss = options.actor_rollout_ref.actor.policy_loss.loss_mode.removeprefix(MEASURED)
    if loss == "geo_mean":
        yield (
            "actor_rollout_ref.actor.policy_loss.loss_mode: geo_mean averages each micro-batch with its "
            "padding, so that masked samples and the packing would change the size of a step; choose "
            "another loss"
        )
    if loss == "sapo" and aggregation != SAPO_MEAN:
        yield (
            f"actor_rollout_ref.actor.loss_agg_mode: sapo divides by slots also with {aggregation}, so that "
            f"masked samples would shrink a step; set train.aggregation: {SAPO_MEAN}"
        )
    chosen = options.algorithm.adv_estimator
    if chosen in ("grpo", OVER_VALID) and chosen != estimator(aggregation):
        yield (
            f"algorithm.adv_estimator: {chosen} does not fit loss_agg_mode: {aggregation}, so that masked "
            "samples would change the size of a step; set train.aggregation, which chooses both"
        )
    if options.algorithm.rollout_correction.rollout_rs and aggregation == "token-mean":
        yield (
            "train.rollout_rs: verl's token-mean still divides by the tokens of rejected documents, so that "
            "rejections would shrink a step; set train.aggregation: seq-mean-token-mean"
        )
