"""`llmi bench staleness`: its arms, its curves and the numbers computed from them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor
from rich.console import Console

from llmi.load.staleness import bench
from llmi.load.staleness.curve import Curve, Point, Reached, averaged
from llmi.load.staleness.numbers import Middle, measure, ratio, targets
from llmi.load.staleness.picture import COLOURS, draw
from llmi.load.staleness.settings import ARMS, StalenessSettings
from llmi.load.staleness.trial import configure, read_curve
from llmi.load.training import Parts
from policy.ledger.writer import LedgerWriter
from policy.train.gradient.refusals import gradient_problems
from policy.train.options.verl_config import compose
from policy.train.verl_options import hydra_overrides
from workers.errors import ConfigError

PARTS = Parts(Path("policy"), Path("prompts.parquet"))
ARM_FIELDS = {"seed", "rollout_is", "max_staleness", "warmup_batches", "admission"}


def curve(rewards: list[float], step_s: float = 2.0, length: int = 2, samples: int = 4) -> Curve:
    """A run of steps of equal length."""
    points = (
        Point(number, step_s * number, samples, reward, staleness=1.0, staleness_worst=2.0, effective=0.9)
        for number, reward in enumerate(rewards, start=1)
    )
    return Curve(tuple(points), length)


def test_arms_differ_in_flight_staleness_and_correction_alone():
    settings = StalenessSettings()
    configs = {name: configure(settings, name, 1, PARTS).train for name in ARMS}
    shared = [train.model_dump(exclude=ARM_FIELDS) for train in configs.values()]
    assert all(each == shared[0] for each in shared)
    differences = {
        name: (train.rollout_is, train.admission, train.warmup_batches, train.max_staleness)
        for name, train in configs.items()
    }
    assert differences == {
        "synchronous": ("token", "fixed", 0.0, 6),
        "coupled": ("token", "fixed", 1.0, 6),
        "llmi": ("token", "adaptive", 1.0, 6),
        "llmi_uncorrected": (None, "adaptive", 1.0, 6),
        "llmi_stale": ("token", "fixed", 7.0, 8),
    }


def test_only_the_uncorrected_arm_is_one_that_training_refuses():
    refused = []
    for name in ARMS:
        train = configure(StalenessSettings(), name, 1, PARTS).train
        overrides = hydra_overrides(
            train, run=Path("run"), data_train=[PARTS.prompts], data_test=[PARTS.prompts]
        )
        refused += [name for problem in gradient_problems(compose(overrides)) if "rollout_is" in problem]
    assert refused == ["llmi_uncorrected"]


def test_a_curve_reaches_the_reward_when_its_mean_does():
    run = curve([0.2, 0.9, 0.4, 0.8])  # means of two: 0.55, 0.65, 0.6
    assert run.rewards == pytest.approx([0.55, 0.65, 0.6])
    assert run.reached(0.65) == Reached(steps=3, samples=12, seconds=6.0)
    assert run.reached(0.7) is None
    # From step 2 to step 4: 0.05 in 8 samples, 2 steps, 4 seconds.
    per = {"thousand samples": 6.25, "step": 0.025, "hour": 45.0}
    assert run.gain_per() == pytest.approx(per)


def test_a_curve_of_too_few_steps_is_refused():
    with pytest.raises(ValueError, match="1 steps are too few for a mean over 2"):
        curve([0.5])


@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.integers(1, 3))
def test_averages_lie_between_the_rewards_that_they_average(rewards, length):
    means = averaged(rewards, length)
    assert len(means) == len(rewards) - length + 1
    for at, mean in enumerate(means):
        window = rewards[at : at + length]
        assert min(window) - 1e-9 <= mean <= max(window) + 1e-9


@pytest.mark.parametrize(
    ("other", "own", "expected"),
    [
        (Reached(10, 40, 30.0), Reached(12, 48, 20.0), 1.5),
        (None, Reached(12, 48, 20.0), math.inf),
        (Reached(10, 40, 30.0), None, 0.0),
        (None, None, None),
    ],
)
def test_ratios_with_runs_that_did_not_reach_the_reward(other, own, expected):
    assert ratio(other, own, "seconds") == expected


def test_numbers_compare_arms_seed_by_seed():
    settings = StalenessSettings(
        arms=("synchronous", "coupled", "llmi"), seeds=(1, 2, 3), averaged=2, reward=0.6
    )
    slow, fast = [0.2, 0.4, 0.6, 0.8], [0.4, 0.8]
    curves = {
        "synchronous": {seed: curve(slow, 6.0) for seed in settings.seeds},
        "coupled": {1: curve(slow, 4.0), 2: curve(slow, 4.0), 3: curve([0.1, 0.1], 4.0)},
        "llmi": {1: curve(slow, 2.0), 2: curve(fast, 2.0), 3: curve(slow, 2.0)},
    }
    own = measure(settings, curves)[2]
    # coupled: 16 s, 16 s, not reached; llmi: 8 s, 4 s, 8 s.
    assert own.faster == Middle(median=4.0, least=2.0, most=math.inf)
    # synchronous: 16 samples each; llmi: 16, 8, 16.
    assert own.fewer == Middle(median=1.0, least=1.0, most=2.0)
    assert own.step_s == 2.0
    assert own.effective == pytest.approx(0.9)
    assert own.clipped is None
    assert own.document()["time_to_reward_against_coupled"] == {"median": 4.0, "least": 2.0, "most": "inf"}
    (target,) = targets(measure(settings, curves))
    assert (target.met, target.value) == (True, 4.0)


def test_a_reward_that_no_arm_reached_misses_the_target():
    settings = StalenessSettings(arms=("coupled", "llmi"), seeds=(1,), averaged=2, reward=0.9)
    numbers = measure(settings, {name: {1: curve([0.2, 0.4])} for name in settings.arms})
    (target,) = targets(numbers)
    assert (target.met, target.value) == (False, 0.0)
    assert targets(numbers[:1]) == []


def test_an_infinite_ratio_is_valid_json():
    settings = StalenessSettings(arms=("coupled", "llmi"), seeds=(1,), averaged=2, reward=0.6)
    numbers = measure(settings, {"coupled": {1: curve([0.2, 0.4])}, "llmi": {1: curve([0.6, 0.8])}})
    (target,) = targets(numbers)
    document = [target.document(), numbers[1].document()]
    assert json.dumps(document, allow_nan=False)
    assert (target.document()["value"], target.met) == ("inf", True)


def test_fewer_steps_than_are_averaged_are_refused():
    with pytest.raises(ValueError, match=r"max_steps must be at least averaged \(4\)"):
        StalenessSettings(max_steps=3)


def test_the_curve_of_a_run_comes_from_its_ledger_and_metrics(tmp_path):
    ledger = LedgerWriter(tmp_path, "trainer")
    for step, began in enumerate((100.0, 103.0), start=1):
        ledger.trainer_waited(began, step=step)
    ledger.close()
    rows = [
        {"timing_s/step": 3.0, "validity/n_valid": 7, "critic/score/mean": 0.4},
        {"timing_s/step": 2.5, "validity/n_valid": 8, "critic/score/mean": 0.6},
    ]
    stale = {
        "training/off_policy/trajectory_staleness/mean": 1.5,
        "training/off_policy/trajectory_staleness_worst/max": 3.0,
    }
    lines = [json.dumps({"step": step, "data": row | stale}) for step, row in enumerate(rows, start=1)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = read_curve(tmp_path, 1)
    assert [(p.step, p.seconds, p.samples, p.reward, p.effective) for p in run.points] == [
        (1, 3.0, 7, 0.4, None),
        (2, 5.5, 8, 0.6, None),
    ]


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch):
    settings = StalenessSettings(arms=("coupled", "llmi"), seeds=(1, 2), averaged=2, reward=0.75)
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(bench, "build_parts", lambda _seed, _console: PARTS)
    ran = []

    def run_arm(_settings, name, seed, _parts, run, *_rest):
        assert not any(run.iterdir())  # nothing of an interrupted run
        ran.append((name, seed))
        (run / "metrics.jsonl").write_text("torn")
        if len(ran) == 2:
            raise KeyboardInterrupt
        return curve([0.5, 0.9, 0.9])

    monkeypatch.setattr(bench, "run_arm", run_arm)
    console = Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        bench.run(settings, tmp_path, None, console)
    _, _, document = bench.run(settings, tmp_path, None, console)
    assert ran == [("coupled", 1), ("llmi", 1), ("llmi", 1), ("coupled", 2), ("llmi", 2)]
    assert document["arms"]["llmi"]["reached"]["2"] == {"steps": 3, "samples": 12, "seconds": 6.0}
    assert json.loads((tmp_path / "staleness.json").read_text()) == document
    with pytest.raises(ConfigError, match="made with other settings; name another folder"):
        bench.run(settings.model_copy(update={"lr": 1e-3}), tmp_path, None, console)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not one of this benchmark; name another"):
        bench.run(StalenessSettings(), tmp_path, None, Console())


def test_the_picture_has_a_line_for_each_arm(tmp_path):
    settings = StalenessSettings(averaged=2)
    curves = {name: {1: curve([0.5, 0.6, 0.7, 0.8], step_s=1 + number)} for number, name in enumerate(ARMS)}
    with Image.open(draw(settings, curves, tmp_path / "picture.png")) as picture:
        pixels = set(picture.convert("RGB").getdata())
    assert {ImageColor.getrgb(colour) for colour in COLOURS.values()} <= pixels
