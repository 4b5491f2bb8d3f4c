"""What verl's V1 trainer (0.9.1) does with stale samples; docs/training.md describes it.

When one of these fails, verl has changed, and what works around it can go: the measured losses, a refusal, or
the advantage estimator.
"""

from __future__ import annotations

import pytest
from verl_step import Sample, step

STALE = [
    Sample("a", 1.0, sampler=[-0.5, -0.9], old=[-1.0, -0.6], new=[-1.0, -0.6]),
    Sample("a", 0.0, sampler=[-1.0, -3.0], old=[-1.0, -1.0], new=[-1.0, -1.0]),
]
ALL = [2, 2]
BYPASS = "algorithm.rollout_correction.bypass_mode=true"
VANILLA = "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"
WEIGHTS = "algorithm.rollout_correction.rollout_is=token"
REJECT = "algorithm.rollout_correction.rollout_rs=seq_mean_k1"
SEQ_MEAN = {"aggregation": "seq-mean-token-mean"}


@pytest.fixture
def trained(composed, monkeypatch):
    """`trained(settings, *options)`: a step on `STALE` and two slots of padding."""
    return lambda settings, *options: step(composed(settings, *options), STALE, 4, ALL, monkeypatch)


def measured(done) -> list[str]:
    return [name for name in done.metrics if name.startswith("rollout_corr/")]


def test_with_recompute_verl_writes_weights_and_metrics(trained):
    done = trained({})
    assert "rollout_is_weights" in done.fields
    assert "rollout_corr/rollout_is_eff_sample_size" in done.metrics


def test_with_recompute_and_no_weights_verl_only_measures(trained):
    done = trained({"rollout_is": None})
    assert "rollout_is_weights" not in done.fields
    assert "rollout_corr/kl" in done.metrics
    # The ratio to the recomputed policy is 1, so clipping never acts.
    assert (done.metrics["actor/ppo_kl"], done.metrics["actor/pg_clipfrac"]) == (0.0, 0.0)


def test_in_bypass_mode_verl_neither_weighs_nor_measures(trained):
    done = trained({}, BYPASS, WEIGHTS)
    assert "rollout_is_weights" not in done.fields
    assert measured(done) == []


def test_in_bypass_mode_the_ratio_is_to_the_sampler(trained):
    done = trained({}, BYPASS)
    # Of the four tokens: e^-0.5 of a good document passes, e^0.3 is clipped, 1 and e^2 of a bad one pass.
    assert done.metrics["actor/pg_clipfrac"] > 0
    assert [token == 0 for token in (*done.gradient[0], *done.gradient[1])] == [False, True, False, False]


def test_in_bypass_mode_verl_rejects_nothing(trained):
    rejecting = trained(SEQ_MEAN, REJECT, BYPASS)
    assert rejecting.gradient == trained(SEQ_MEAN, BYPASS).gradient
    assert trained(SEQ_MEAN, REJECT).gradient[1] == [0.0, 0.0]


def test_token_mean_still_divides_by_the_tokens_of_rejected_documents(trained):
    kept, _ = trained({}).gradient
    first, rejected = trained({}, REJECT, "algorithm.rollout_correction.rollout_rs_threshold=1.5").gradient
    assert rejected == [0.0, 0.0]
    assert first == kept


def test_by_document_verl_divides_by_all_slots(trained):
    ours = trained(SEQ_MEAN).gradient
    verls = trained(SEQ_MEAN, "algorithm.adv_estimator=grpo").gradient
    assert [2 * token for one in verls for token in one] == pytest.approx([x for one in ours for x in one])


def test_the_measured_loss_is_verls(trained):
    settings = {"old_log_prob": "rollout"}
    ours, verls = trained(settings), trained(settings, VANILLA)
    assert (ours.loss, ours.gradient) == (verls.loss, verls.gradient)
    assert measured(ours)
    assert not measured(verls)
