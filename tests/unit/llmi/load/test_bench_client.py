"""What the benchmark of the producer computes and shows; that it measures is an integration test."""

from __future__ import annotations

import gc
from random import Random

import pytest
from rich.console import Console

from llmi.load.client.numbers import LAG_MS, POSTING_MS, ROLLOUT_KB, Numbers
from llmi.load.commands.client import show
from llmi.load.simulated.model import END, SimulatedModel, Vocabulary, compose
from llmi.load.simulated.workers import result
from llmi.load.spread import Spread
from llmi.load.targets import Target
from policy.document import ImagePart
from policy.grammar.tags import CLOSE, TagReader
from policy.rollout.freeze_gc import YOUNG, freeze_gc
from rewards.verdicts import ImageVerdict


def test_quantiles_are_measured_durations_in_milliseconds():
    spread = Spread.of([0.125 * n for n in range(100, 0, -1)])
    assert (spread.n, spread.p50, spread.p90, spread.p99, spread.largest) == (100, 6250, 11250, 12375, 12500)


def test_nothing_measured_is_no_error():
    assert Spread.of([]) == Spread()


@pytest.mark.parametrize("seed", range(5))
def test_each_segment_but_the_last_ends_where_a_tag_closes(seed):
    vocabulary = Vocabulary()
    *tagged, last = compose(Random(seed), vocabulary).segments
    assert tagged
    assert all(vocabulary.decode(segment).endswith(CLOSE) for segment in tagged)
    assert last[-1] == END
    assert CLOSE not in vocabulary.decode(last)


def test_simulated_documents_hold_valid_tags_and_prose():
    model = SimulatedModel(0, lambda *_: None)
    for text in model.texts[:20]:
        reader = TagReader(0)
        parts = reader.feed(model.vocabulary.decode([i for s in text.segments for i in s])) + reader.close()
        assert sum(isinstance(part, ImagePart) for part in parts) == len(text.segments) - 1
        assert 300 < text.tokens < 4000


def test_the_same_seed_gives_the_same_documents():
    assert SimulatedModel(3, lambda *_: None).texts == SimulatedModel(3, lambda *_: None).texts


def test_simulated_judges_answer_in_the_real_form():
    ImageVerdict.read(result("judge_image", "r", Random(0)).verdict)
    assert result("search", "r", Random(0)).images


@pytest.mark.parametrize(("over", "sign"), [(0.0, "✓"), (0.01, "✗")])
def test_a_target_is_met_up_to_its_limit(over, sign):
    numbers = Numbers(
        1000,
        20.0,
        posting=Spread(1, POSTING_MS + over),
        loop_lag=Spread(1, 0.0, 0.0, LAG_MS + over),
        rollout_kb=ROLLOUT_KB + over,
    )
    assert [target.met for target in numbers.targets] == [sign == "✓"] * 3
    assert [target["met"] for target in numbers.document()["targets"]] == [sign == "✓"] * 3
    console = Console(record=True, width=120)
    show(console, numbers)
    assert console.export_text().count(sign) == 3


def test_a_target_may_ask_for_at_least():
    target = Target("samples per second against blocking", 3.0, "x", at_least=3.0)
    assert target.met
    assert target.limits == "at least 3 x"
    assert target.document() == {
        "name": target.name, "value": 3.0, "unit": "x", "at_least": 3.0, "met": True
    }  # fmt: skip
    assert not Target("", 2.99, at_least=3.0).met
    assert Target("", 0.5, at_least=0.1, at_most=0.7).limits == "at least 0.1 and at most 0.7"


def test_ratios_are_medians_against_medians():
    numbers = Numbers(1, 1.0, posting=Spread(1, 3.0), raw_idle=Spread(1, 0.1), raw_loaded=Spread(1, 1.5))
    assert numbers.document()["ratio_idle"] == pytest.approx(30)
    assert numbers.document()["ratio_loaded"] == pytest.approx(2)


def test_a_settled_heap_is_left_out_of_collections():
    before = gc.get_threshold()
    try:
        freeze_gc()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold() == (YOUNG, *before[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
