"""The choice of prompts by the results of their groups, without verl."""

from __future__ import annotations

import math
import random
from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.data.curriculum import Curriculum
from policy.data.prompt_results import PromptResults
from workers.errors import ConfigError

HALF_LIFE = 8.0
FLOOR = 0.2
PROMPTS = st.integers(1, 12)
REWARDS = st.lists(st.floats(0, 1), max_size=8)


@st.composite
def histories(draw) -> tuple[int, list[tuple[int, list[float]] | None]]:
    """A number of prompts, and what happened: a group of a prompt, or (None) a step."""
    prompts = draw(PROMPTS)
    group = st.tuples(st.integers(0, prompts - 1), REWARDS)
    return prompts, draw(st.lists(st.none() | group, max_size=30))


def played(prompts: int, events) -> PromptResults:
    results = PromptResults(prompts, HALF_LIFE)
    for event in events:
        if event is None:
            results.start_step()
        else:
            results.record(*event)
    return results


def chances(results: PromptResults, floor: float = FLOOR) -> np.ndarray:
    return Curriculum(results, floor, seed=1).probabilities()


@given(histories(), st.floats(0.01, 1))
def test_no_prompt_starves(history, floor):
    found = chances(played(*history), floor)
    assert math.isclose(found.sum(), 1)
    assert found.min() >= floor / len(found) * (1 - 1e-9)


@given(histories(), st.data())
def test_a_prompt_to_avoid_is_not_chosen_unless_there_is_no_other(history, data):
    results = played(*history)
    avoid = data.draw(st.lists(st.integers(0, history[0] - 1), max_size=20))
    choice = Curriculum(results, FLOOR, seed=1).choose(3, avoid)
    assert 0 <= choice < history[0]
    assert choice not in avoid or set(avoid) == set(range(history[0]))


@given(histories(), histories())
def test_a_restored_state_chooses_and_learns_as_the_saved_one(before, after):
    prompts, events = before
    later = [event and (event[0] % prompts, event[1]) for event in after[1]]
    saved = played(prompts, events)
    restored = PromptResults(prompts, HALF_LIFE)
    restored.load_state_dict(saved.state_dict())
    chosen = []
    for results in (saved, restored):
        curriculum = Curriculum(results, FLOOR, seed=1)
        choices = []
        for draw, event in enumerate(later):
            if event is None:
                results.start_step()
            else:
                results.record(*event)
            choices.append(curriculum.choose(draw))
        chosen.append(choices)
    assert chosen[0] == chosen[1]


def test_a_saved_state_does_not_change_with_later_results():
    results = played(2, [(0, [0.0, 1.0])])
    saved = results.state_dict()
    results.record(0, [0.5, 0.5])
    assert saved["groups"].tolist() == [1, 0]


def test_the_state_of_other_data_is_refused():
    saved = PromptResults(3, HALF_LIFE).state_dict()
    with pytest.raises(ConfigError, match="has 2 prompts, and the checkpoint was made with 3"):
        PromptResults(2, HALF_LIFE).load_state_dict(saved)


@given(histories(), REWARDS, st.randoms(use_true_random=False))
def test_the_order_in_which_samples_end_does_not_matter(history, rewards, shuffler):
    prompts, events = history
    other = rewards.copy()
    shuffler.shuffle(other)
    one, two = (played(prompts, [*events, (0, found)]) for found in (rewards, other))
    assert one.variance().tolist() == two.variance().tolist()
    assert one.metrics() == two.metrics()


@given(histories())
def test_a_group_without_a_valid_sample_says_nothing(history):
    prompts, events = history
    without, with_it = played(prompts, events), played(prompts, [*events, (0, [])])
    assert without.metrics() == with_it.metrics()
    assert without.variance().tolist() == with_it.variance().tolist()


def test_one_sample_says_nothing_about_the_variance():
    results = played(2, [(0, [0.0, 1.0]), (1, [0.3])])
    assert results.variance()[1] == pytest.approx(0.5)  # that of all prompts
    assert results.metrics()["prompts/signal"] == 1.0


def test_too_easy_and_too_hard_prompts_are_read_less_than_untried_ones():
    mixed, easy, hard, untried = chances(played(4, [(0, [0, 0, 1, 1]), (1, [1] * 4), (2, [0] * 4)]))
    assert mixed > untried > easy == hard


def test_fewer_samples_say_less():
    whole, half = chances(played(3, [(0, [0.5] * 8), (1, [0.5] * 3), (2, [0.0, 1.0])]))[:2]
    assert whole < half


def test_a_prompt_without_a_signal_is_tried_again_as_the_policy_changes():
    results = played(8, [(0, [0.5] * 8)])
    found = []
    for _ in range(8 * int(HALF_LIFE)):
        results.start_step()
        for prompt in range(1, 8):
            results.record(prompt, [0.0, 0.0, 1.0, 1.0])
        found.append(chances(results)[0])
    assert found == sorted(found)
    assert found[-1] > 0.9 / 8


@given(st.integers(1, 40))
def test_without_any_signal_the_choice_is_uniform(prompts):
    results = played(prompts, [(prompt, [0.25] * 4) for prompt in range(prompts)])
    assert Curriculum(results, FLOOR, seed=1).effective() == pytest.approx(prompts)


def test_metrics_are_those_of_the_step():
    results = played(4, [(0, [0, 1]), (1, [1, 1]), None, (2, [0.2, 0.4]), (1, [0.5, 0.5]), (1, [0.5, 0.5])])
    metrics = results.metrics()
    assert metrics["prompts/signal"] == pytest.approx(1 / 3)
    assert metrics["prompts/untried"] == 1
    assert 0.5 < metrics["prompts/difficulty"] < 0.6  # of 0.5, 0.7 and between 0 and 0.5
    assert PromptResults(2, HALF_LIFE).metrics() == {"prompts/untried": 2}


# A learner: a prompt is solved more often the more the skill exceeds its difficulty, and each group with a
# signal adds to the skill.
COUNT, BATCH, SAMPLES, STEPS = 64, 8, 8, 64
FIRST_PASS = COUNT // BATCH
PASSES = 60


def learn(seed: int, *, by_signal: bool) -> tuple[float, float, Counter[int]]:
    """The share of groups with a signal after the first pass, the skill at the end, and reads by prompt after
    the first pass.
    """
    rng = random.Random(seed)
    difficulties = [rng.uniform(-3, 5) for _ in range(COUNT)]
    results = PromptResults(COUNT, half_life=COUNT / BATCH)
    curriculum = Curriculum(results, FLOOR, seed)
    reads: Counter[int] = Counter()
    recent: deque[int] = deque(maxlen=BATCH)
    order: list[int] = []
    skill, with_signal = 0.0, 0
    for step in range(STEPS):
        results.start_step()
        gained = 0
        for _ in range(BATCH):
            order = order or rng.sample(range(COUNT), COUNT)
            prompt = order.pop()
            if by_signal and reads[prompt]:
                prompt = curriculum.choose(reads.total(), recent)
            recent.append(prompt)
            reads[prompt] += 1
            solved = 1 / (1 + math.exp(1.5 * (difficulties[prompt] - skill)))
            rewards = [float(rng.random() < solved) for _ in range(SAMPLES)]
            results.record(prompt, rewards)
            gained += len(set(rewards)) > 1
        skill += 0.02 * gained
        with_signal += gained if step >= FIRST_PASS else 0
    later = Counter({prompt: count - 1 for prompt, count in reads.items()})
    return with_signal / (BATCH * (STEPS - FIRST_PASS)), skill, later


def test_a_learner_gets_more_groups_with_a_signal_than_by_uniform_choice():
    uniform, chosen = ([learn(seed, by_signal=on) for seed in range(6)] for on in (False, True))
    for plain, better in zip(uniform, chosen, strict=True):
        assert better[0] > plain[0]
        assert better[1] > plain[1]
        assert set(plain[2].values()) == {STEPS // FIRST_PASS - 1}
    share = [sum(run[0] for run in runs) / len(runs) for runs in (uniform, chosen)]
    assert share[1] > 1.15 * share[0]


def test_every_prompt_is_read_again_after_the_first_pass():
    """Also those without a signal: never solved, always solved."""
    results = PromptResults(COUNT, half_life=COUNT / BATCH)
    curriculum = Curriculum(results, FLOOR, seed=1)
    recent: deque[int] = deque(maxlen=BATCH)
    reads = dict.fromkeys(range(COUNT), 0)
    for draw in range(COUNT * PASSES):
        if draw % BATCH == 0:
            results.start_step()
        prompt = draw if draw < COUNT else curriculum.choose(draw, recent)
        recent.append(prompt)
        reads[prompt] += draw >= COUNT
        mixed = prompt < BATCH  # the others solve all samples, or none
        results.record(prompt, [0.0, 1.0] * 4 if mixed else [float(prompt % 2)] * SAMPLES)
    assert min(reads.values()) > FLOOR * PASSES / 2
    assert min(reads[prompt] for prompt in range(BATCH)) > 2 * max(
        reads[prompt] for prompt in range(BATCH, COUNT)
    )
