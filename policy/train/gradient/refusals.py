"""Refuse options of verl with which the gradient would not be what it claims to be (verl 0.9.1).

Invariants:
- The options that verl gets are examined, whoever set them.
- verl is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OVER_VALID = "grpo_over_valid"  # the advantage estimator of `policy.train.gradient.advantage`
LOSSES = "policy.train.gradient.losses"
MEASURED = "measured_"  # prefix of the losses of that module
# Losses that clip the mean ratio of a document, and losses without any ratio to the old policy.
SEQUENCE_RATIO = ("gspo", "geo_mean")
NO_RATIO = ("gpg", "dro")


def estimator(aggregation: str) -> str:
    """The advantage estimator for verl's `loss_agg_mode`.

    verl divides the loss by the slots of a batch in its seq-mean modes, and by the tokens in token-mean.
    Only slots count masked samples.
    """
    return OVER_VALID if aggregation.startswith("seq-mean") else "grpo"


def gradient_problems(options: Any) -> list[str]:
    """What is wrong with verl's composed configuration, each with the setting to change."""
    return [*_inputs(options), *_correction(options), *_divisor(options)]


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


def _correction(options: Any) -> Iterator[str]:
    correction = options.algorithm.rollout_correction
    loss = options.actor_rollout_ref.actor.policy_loss.loss_mode.removeprefix(MEASURED)
    mode = options.trainer.v1.trainer_mode
    stale = mode.rpartition("_")[2] != "sync"
    if not correction.bypass_mode:
        if stale and not correction.rollout_is:
            yield (
                f"train.rollout_is: {mode} trains on samples that older weights wrote, and null leaves them "
                "uncorrected, since the ratio to a recomputed old policy is 1 everywhere; set "
                "train.rollout_is: token, train.old_log_prob: rollout, or train.mode: sync"
            )
        return
    unused = [name for name in ("rollout_is", "rollout_rs") if correction[name]]
    if unused:
        yield (
            f"train.{', train.'.join(unused)}: no effect with train.old_log_prob: rollout, because verl then "
            "computes neither weights nor rejections; set train.old_log_prob: recompute, or leave "
            f"{' and '.join(unused)} out"
        )
    if loss in SEQUENCE_RATIO:
        yield (
            f"train.old_log_prob: {loss} clips the mean ratio of a document in a range of some 1e-4, so that "
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
