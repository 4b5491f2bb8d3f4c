"""Overrides: `KEY=VALUE` texts, values checked like the file, errors that name the override."""

import pytest

from coordinator.config import overrides
from coordinator.config.settings import load, load_services
from workers.errors import ConfigError


def test_values_are_yaml():
    texts = [
        "train.steps=3",
        "train.in_order=true",
        "train.steps_=null",
        "data.train=[a.parquet, b.parquet]",
        "tools.search.provider=serper",
        "name=",
        "queue.redis_url=redis://host:6379/0?db=3",
    ]
    assert overrides.parse(texts) == {
        "train.steps": 3,
        "train.in_order": True,
        "train.steps_": None,
        "data.train": ["a.parquet", "b.parquet"],
        "tools.search.provider": "serper",
        "name": None,
        "queue.redis_url": "redis://host:6379/0?db=3",
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["train.lr"], r"override 'train\.lr': has no value; write KEY=VALUE, such as train\.lr=1e-6"),
        (["=1"], "override '=1': has no key"),
        (["train..lr=1"], "override 'train..lr=1': has no key"),
        (["data.train=[a"], r"override 'data\.train=\[a': the value is not YAML"),
        (["a=1", "a=2"], "override a: given twice"),
    ],
)
def test_a_wrong_text_is_named(texts, message):
    with pytest.raises(ConfigError, match=message):
        overrides.parse(texts)


def test_the_overridden_mapping_stays_as_it_is():
    shared = {"steps": 1}
    raw = {"diffusion": shared, "edit": shared}
    assert overrides.apply(raw, {"edit.steps": 2}) == {"diffusion": {"steps": 1}, "edit": {"steps": 2}}
    assert raw == {"diffusion": {"steps": 1}, "edit": {"steps": 1}}


def test_sections_that_are_absent_or_empty_are_made():
    assert overrides.apply({"train": None}, {"train.lr": 1, "a.b.c": 2}) == {
        "train": {"lr": 1},
        "a": {"b": {"c": 2}},
    }


def test_a_number_is_a_place_in_a_list():
    raw = {"pools": [{"high": 1}, {"high": 2}]}
    assert overrides.apply(raw, {"pools.1.high": 8}) == {"pools": [{"high": 1}, {"high": 8}]}
    with pytest.raises(
        ConfigError, match=r"override pools\.2\.high: '2' is no place in the list; valid: 0 to 1"
    ):
        overrides.apply(raw, {"pools.2.high": 8})


def test_a_key_below_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"override train\.lr\.x: train\.lr is 1 and has no keys below it"):
        overrides.apply({"train": {"lr": 1}}, {"train.lr.x": 2})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["train.lrr=1"], r"^override train\.lrr: unknown key; did you mean train\.lr\?$"),
        (["trian.lr=1"], r"^override trian\.lr: trian: unknown key; did you mean train\?$"),
        (["train.n=1"], r"^override train\.n: Input should be greater than or equal to 2 \(it is 1\)$"),
        (
            ["tools.search={providr: serpapi}"],
            r"^override tools\.search: tools\.search\.providr: unknown key",
        ),
        (["workers.pools.0.low=9"], r"low \(9\) is above high"),
    ],
)
def test_a_wrong_override_is_refused_by_its_key(texts, message):
    with pytest.raises(ConfigError, match=message):
        load("qwen3_4b_grpo", overrides.parse(texts))


def test_any_key_can_be_overridden():
    texts = ["train.lr=2e-6", "tools.search.provider=library", "workers.pools.0.high=9"]
    run = load("qwen3_4b_grpo", overrides.parse(texts))
    assert (run.train.lr, run.tools.search.provider, run.workers.pools[0].high) == (2e-6, "library", 9)
    assert load_services("evaluate_llmi_bench", {"rubric.provider": "rules"}).rubric.provider == "rules"
