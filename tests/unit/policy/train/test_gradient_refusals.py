"""Refuse options of verl with which the gradient is not what it claims to be, wherever they are set."""

from __future__ import annotations

import pytest

from policy.train.gradient.refusals import gradient_problems

CORRECTION = "algorithm.rollout_correction"
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
SEQ_MEAN = {"aggregation": "seq-mean-token-mean"}
ROLLOUT = {"old_log_prob": "rollout"}


@pytest.fixture
def refused(composed):
    """`refused(settings, *options)`: what is wrong with verl's options, of which the last ones win."""
    return lambda settings, *options: gradient_problems(composed(settings, *options))


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async", "sync"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"loss": "gspo"} | SEQ_MEAN, ROLLOUT, SEQ_MEAN | {"rollout_rs": "seq_mean_k1"}],
    ids=["grpo", "gspo", "rollout", "rejection"],
)
def test_the_defaults_of_every_mode_pass(refused, mode, settings):
    assert refused(settings | {"mode": mode}) == []


def test_a_synchronous_run_needs_no_correction(refused):
    assert refused({"mode": "sync", "rollout_is": None}) == []


@pytest.mark.parametrize(
    ("settings", "options", "field", "cure"),
    [
        (
            {"rollout_is": None},
            (),
            "train.rollout_is: windowed_separate_async",
            "set train.rollout_is: token",
        ),
        ({"rollout_is": None, "mode": "colocate_async"}, (), "train.rollout_is", "train.mode: sync"),
        ({"rollout_is": None, "admission": "fixed"}, (), "train.rollout_is", "train.old_log_prob: rollout"),
        ({"rollout_is": None, "loss": "gspo"} | SEQ_MEAN, (), "train.rollout_is", "token"),
        ({}, (f"{CORRECTION}.rollout_is=null",), "train.rollout_is", "token"),
        ({}, (f"{CORRECTION}.rollout_is_threshold=null",), "train.rollout_is_threshold", "threshold: 2.0"),
        (ROLLOUT, (f"{CORRECTION}.bypass_mode=false",), "train.rollout_is", "token"),
        (
            ROLLOUT | {"loss": "gspo"} | SEQ_MEAN,
            (),
            "train.old_log_prob: gspo",
            "set train.old_log_prob: rec",
        ),
        (ROLLOUT | {"loss": "gspo", "mode": "sync"} | SEQ_MEAN, (), "train.old_log_prob: gspo", "recompute"),
        (ROLLOUT, (f"{LOSS}=gspo",), "train.old_log_prob: gspo", "recompute"),
        (
            {},
            (f"{LOSS}=sapo",),
            "actor_rollout_ref.actor.loss_agg_mode: sapo",
            "set train.aggregation: seq-mean",
        ),
        (SEQ_MEAN, (f"{LOSS}=geo_mean",), f"{LOSS}: geo_mean", "another loss"),
        (ROLLOUT, (f"{LOSS}=measured_geo_mean",), f"{LOSS}: geo_mean", "another loss"),
        (ROLLOUT, (f"{LOSS}=gpg",), "train.old_log_prob: the loss gpg", "recompute"),
        (ROLLOUT | {"rollout_is": "token"}, (), "train.rollout_is: no effect", "leave rollout_is out"),
        (ROLLOUT | {"rollout_is": "token", "mode": "sync"}, (), "train.rollout_is: no effect", "recompute"),
        (ROLLOUT | {"rollout_rs": "seq_mean_k1"} | SEQ_MEAN, (), "train.rollout_rs: no effect", "recompute"),
        ({"kl": {"form": "loss", "estimator": "kl"}}, (), "train.kl.estimator", "mse or low_var_kl"),
        ({"rollout_rs": "seq_mean_k1"}, (), "train.rollout_rs: verl's token-mean", "seq-mean-token-mean"),
        (
            {},
            ("actor_rollout_ref.rollout.calculate_log_probs=false",),
            "actor_rollout_ref.rollout.calculate_log_probs",
            "leave it true",
        ),
        (
            ROLLOUT,
            ("actor_rollout_ref.model.external_lib=[policy.cpu.gloo]",),
            "actor_rollout_ref.model.external_lib: must contain policy.train.gradient.losses",
            "add it",
        ),
        (
            {},
            ("actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum",),
            "algorithm.adv_estimator: grpo does not fit",
            "set train.aggregation",
        ),
        (
            SEQ_MEAN,
            ("algorithm.adv_estimator=grpo",),
            "algorithm.adv_estimator: grpo does not fit",
            "set train.aggregation",
        ),
    ],
)
def test_a_gradient_that_is_not_what_it_claims_is_refused(refused, settings, options, field, cure):
    [problem] = refused(settings, *options)
    wrong, _, advice = problem.partition("; ")
    assert wrong.startswith(field)
    assert cure in advice


def test_a_kl_penalty_of_that_estimator_may_be_in_the_reward(refused):
    assert refused({"kl": {"form": "reward", "estimator": "kl"}}) == []


def test_sapo_passes_with_the_mean_that_it_computes(refused):
    assert refused(SEQ_MEAN, f"{LOSS}=sapo") == []


def test_another_estimator_of_verl_is_the_users_choice(refused):
    assert refused(SEQ_MEAN, "algorithm.adv_estimator=rloo") == []
