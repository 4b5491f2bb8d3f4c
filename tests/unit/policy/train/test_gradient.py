"""Loss and gradient of a step of verl, against the formulas of the papers computed here without verl.

GRPO (arXiv 2402.03300) with dual clipping (1912.09729), GSPO (2507.18071) in its token form, and truncated
importance sampling: each token's term is multiplied by min(pi_old / pi_sampler, C), without a gradient.
"""

from __future__ import annotations

import math
from itertools import chain
from statistics import mean, stdev

import pytest
from verl_step import Sample, step

from policy.settings import TrainSettings
from policy.train.gradient.metrics import CLIPPED, EFFECTIVE

SLOTS = 8
MICRO_BATCHES = [3, 4, 1]  # the last has only the padding of the masked sample
GSPO = {"loss": "gspo", "aggregation": "seq-mean-token-mean", "clip_low": 0.02, "clip_high": 0.03}
RUNS = {
    "grpo": {},
    "grpo by document": {"aggregation": "seq-mean-token-mean"},
    "grpo by sum": {"aggregation": "seq-mean-token-sum"},
    "grpo, old from rollout": {"old_log_prob": "rollout"},
    "gspo": GSPO,
    "gspo with rejection": GSPO | {"rollout_rs": "seq_mean_k1", "rollout_rs_threshold": 1.2},
}


def sample(group: str, reward: float, old: list[float], stale: list[float], moved: list[float]) -> Sample:
    """`stale`: by how much the sampler's log-probabilities are above the old policy's; `moved`: by how much
    the new policy's are.
    """
    plus = lambda other: [a + b for a, b in zip(old, other, strict=True)]  # noqa: E731 - used twice
    return Sample(group, reward, sampler=plus(stale), old=old, new=plus(moved))


# Fresh samples, stale ones with weights on both sides of the threshold 2, new ratios on both sides of every
# clip, and a group of three, because its fourth sample was masked.
SAMPLES = [
    sample("a", 0.9, [-1.0, -2.0, -0.5], [0.0, 0.0, 0.0], [0.1, 0.3, -0.3]),
    sample("a", 0.1, [-0.7, -1.1], [0.0, 0.0], [0.05, -0.4]),
    sample("a", 0.5, [-2.0, -0.1, -0.3, -1.5], [-0.9, 0.4, 0.1, -0.2], [0.01, 0.02, 0.25, -0.01]),
    sample("a", 0.2, [-0.2, -3.0, -1.0], [0.7, -0.1, 0.3], [2.5, 0.1, -0.3]),
    sample("b", 0.8, [-0.4, -0.6, -0.8, -1.0, -1.2], [0.3, 0.2, 0.1, 0.0, -1.0], [0.0] * 5),
    sample("b", 0.3, [-1.5], [-0.1], [0.015]),
    sample("b", 0.5, [-0.9, -0.9], [0.05, -0.05], [-0.2, 0.3]),
]


@pytest.fixture
def trained(composed, monkeypatch):
    """`trained(settings, samples)`: a step of verl with our options."""
    return lambda settings, samples=SAMPLES: step(
        composed(settings), samples, SLOTS, MICRO_BATCHES, monkeypatch
    )


def advantages(samples: list[Sample]) -> list[float]:
    """(R - mean) / std of the valid samples of its group."""
    groups = {one.group: [other.reward for other in samples if other.group == one.group] for one in samples}
    return [(one.reward - mean(groups[one.group])) / (stdev(groups[one.group]) + 1e-6) for one in samples]


def objective(ratio: float, advantage: float, low: float, high: float, bound: float) -> tuple[float, float]:
    """The clipped objective, and its derivative by the logarithm of the ratio."""
    clipped = min(max(ratio, 1 - low), 1 + high)
    value = min(ratio * advantage, clipped * advantage)
    slope = ratio * advantage if ratio * advantage <= clipped * advantage else 0.0
    if advantage < 0 and value < bound * advantage:
        return bound * advantage, 0.0
    return value, slope


def reference(settings: TrainSettings, samples: list[Sample]) -> tuple[float, list[list[float]]]:
    """The loss, and its gradient by the new log-probabilities."""
    bypass, gspo = settings.old_log_prob == "rollout", settings.loss == "gspo"
    bound = math.inf if gspo else settings.clip_c
    values, slopes, kept = [], [], []
    for one, advantage in zip(samples, advantages(samples), strict=True):
        old = one.sampler if bypass else one.old
        ratios = [math.exp(new - before) for new, before in zip(one.new, old, strict=True)]
        if gspo:
            ratios = [math.prod(ratios) ** (1 / len(ratios))] * len(ratios)
        weights = [1.0] * len(ratios)
        if not bypass:
            stale = [math.exp(a - b) for a, b in zip(one.old, one.sampler, strict=True)]
            weights = [min(weight, settings.rollout_is_threshold) for weight in stale]
            mean_ratio = math.prod(stale) ** (1 / len(stale))
            limit = settings.rollout_rs_threshold if settings.rollout_rs else math.inf
            kept.append(1 / limit <= mean_ratio <= limit)
        else:
            kept.append(True)
        terms = [objective(r, advantage, settings.clip_low, settings.clip_high, bound) for r in ratios]
        values.append([weight * value for weight, (value, _) in zip(weights, terms, strict=True)])
        slopes.append([weight * slope for weight, (_, slope) in zip(weights, terms, strict=True)])
    tokens = sum(len(one.new) for one in samples)
    share = {
        "token-mean": lambda one: 1 / tokens,
        "seq-mean-token-mean": lambda one: 1 / sum(kept) / len(one.new),
        "seq-mean-token-sum": lambda one: 1 / sum(kept),
    }[settings.aggregation]
    shares = [share(one) * keep for one, keep in zip(samples, kept, strict=True)]
    loss = -sum(part * sum(value) for part, value in zip(shares, values, strict=True))
    return loss, [[-part * s for s in slope] for part, slope in zip(shares, slopes, strict=True)]


def flat(lists: list[list[float]]) -> list[float]:
    return list(chain.from_iterable(lists))


@pytest.mark.parametrize("name", RUNS)
def test_loss_and_gradient_are_those_of_the_formulas(trained, on_cpu, name):
    got = trained(RUNS[name])
    loss, gradient = reference(on_cpu(**RUNS[name]), SAMPLES)
    assert got.loss == pytest.approx(loss, abs=1e-6)
    assert flat(got.gradient) == pytest.approx(flat(gradient), abs=1e-6)


def test_the_batch_has_every_case_that_the_formulas_treat_apart(on_cpu):
    settings = on_cpu()
    ratios = [math.exp(a - b) for one in SAMPLES for a, b in zip(one.new, one.old, strict=True)]
    weights = [math.exp(a - b) for one in SAMPLES for a, b in zip(one.old, one.sampler, strict=True)]
    assert any(ratio > settings.clip_c for ratio in ratios)
    assert any(1 + settings.clip_high < ratio < settings.clip_c for ratio in ratios)
    assert any(ratio < 1 - settings.clip_low for ratio in ratios)
    assert any(weight > settings.rollout_is_threshold for weight in weights)
    assert any(weight < 1 for weight in weights)
    assert weights.count(1.0) >= 5
    rejected = on_cpu(**RUNS["gspo with rejection"])
    left = [one for one, part in zip(SAMPLES, reference(rejected, SAMPLES)[1], strict=True) if any(part)]
    assert 0 < len(left) < len(SAMPLES)


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_a_masked_sample_does_not_shrink_the_step(trained, on_cpu, aggregation):
    """The same documents have the same gradient, however many slots are padding."""
    fewer = trained({"aggregation": aggregation}, SAMPLES[:4])
    _, gradient = reference(on_cpu(aggregation=aggregation), SAMPLES[:4])
    assert flat(fewer.gradient) == pytest.approx(flat(gradient), abs=1e-6)


def test_an_uncorrected_step_takes_stale_samples_as_fresh(trained):
    """What is refused: whatever the sampler was, the gradient is the same."""
    settings = {"rollout_is": None}
    fresh = [Sample(one.group, one.reward, one.old, one.old, one.new) for one in SAMPLES]
    assert trained(settings).gradient == trained(settings, fresh).gradient
    assert trained({}).gradient != trained({}, fresh).gradient


def test_both_ways_report_the_same_metrics(trained):
    recomputed, rollout = trained({}).metrics, trained({"old_log_prob": "rollout"}).metrics
    names = {name for name in rollout if name.startswith("rollout_corr/")}
    assert names <= recomputed.keys()
    assert {EFFECTIVE, CLIPPED, "rollout_corr/kl", "rollout_corr/k3_kl"} <= names
    assert not [name for name in rollout if name.startswith("actor/rollout_corr/")]


def test_the_effective_sample_size_and_the_share_clipped_are_those_of_the_tokens(trained, on_cpu):
    stale = [math.exp(a - b) for one in SAMPLES for a, b in zip(one.old, one.sampler, strict=True)]
    ratios = [math.exp(a - b) for one in SAMPLES for a, b in zip(one.new, one.sampler, strict=True)]
    rollout = {"old_log_prob": "rollout"}
    slopes = flat(reference(on_cpu(**rollout), SAMPLES)[1])
    cases = (
        ({}, [min(w, 2.0) for w in stale], sum(w > 2 for w in stale)),
        (rollout, [min(r, 10.0) for r in ratios], slopes.count(0.0)),
    )
    for settings, weights, clipped in cases:
        metrics = trained(settings).metrics
        effective = sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)
        assert metrics[EFFECTIVE] == pytest.approx(effective, abs=1e-5)
        assert metrics["rollout_corr/rollout_is_mean"] == pytest.approx(mean(weights), abs=1e-5)
        assert metrics[CLIPPED] == pytest.approx(clipped / len(weights))
