"""Configurations: the shipped ones have the published values; wrong input is reported with field, file and a
hint."""

import json
from pathlib import Path

import pytest

from coordinator.config import settings as config
from coordinator.config.files import read, shipped
from policy.train.verl_options import hydra_overrides
from workers.errors import ConfigError
from workers.settings import QueueSettings, ToolSettings, section

MINIMAL = {"train": {"model": "some/model"}, "data": {"train": ["a.parquet"]}}


RUNS = [name for name in shipped() if "train" in read(name)[0]]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_configuration_loads_for_workers(name):
    assert config.load_services(name).workers.pools


@pytest.mark.parametrize("name", RUNS)
def test_every_shipped_configuration_resolves_to_verl_options(name, tmp_path):
    run = config.load(name)
    overrides = hydra_overrides(run.train, run=tmp_path, data_train=[Path("a")], data_test=[Path("b")])
    assert f"actor_rollout_ref.model.path='{run.train.model}'" in overrides


def test_eight_runs_are_shipped():
    assert RUNS == [
        "demo",
        "demo_vl",
        "qwen2_5_vl_7b_grpo",
        "qwen2_5_vl_7b_published",
        "qwen3_30b_a3b_gspo",
        "qwen3_30b_a3b_published",
        "qwen3_4b_grpo",
        "qwen3_4b_published",
    ]


@pytest.mark.parametrize(
    ("section_name", "key", "hint"),
    [
        ("train", "learning_rte", "train.learning_rte: unknown key"),
        ("train", "batch_sise", "did you mean train.batch_size?"),
        ("queue", "redis_urll", "did you mean queue.redis_url?"),
    ],
)
def test_unknown_key_names_file_field_and_nearest(write_config, section_name, key, hint):
    path = write_config(MINIMAL | {section_name: {**MINIMAL.get(section_name, {}), key: 1}})
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(path) in str(caught.value)
    assert f"{section_name}.{key}" in str(caught.value)
    assert hint in str(caught.value)


def test_key_in_the_wrong_section_is_suggested_in_the_right_one(write_config):
    with pytest.raises(ConfigError, match=r"lr: unknown key; did you mean train\.lr\?"):
        config.load(write_config(MINIMAL | {"lr": 1}))


def test_wrong_value_names_field_and_value(write_config):
    with pytest.raises(ConfigError, match=r"train\.n: .*greater than or equal to 2 \(it is 1\)"):
        config.load(write_config(MINIMAL | {"train": {"model": "m", "n": 1}}))


def test_all_problems_are_named_at_once(write_config):
    with pytest.raises(ConfigError) as caught:
        config.load(write_config({"train": {"model": "m", "n": 1, "lr": -1}}))
    assert {"train.n", "train.lr", "data"} <= {line.split(": ")[1] for line in str(caught.value).splitlines()}


def test_key_given_twice_is_refused(write_config):
    with pytest.raises(ConfigError, match="'lr' is given twice"):
        config.load(write_config("train:\n  lr: 1\n  lr: 2\n"))


def test_a_list_as_key_is_refused_with_its_line(write_config):
    with pytest.raises(ConfigError, match=r":1: not valid YAML: found unhashable key"):
        config.load(write_config("? [a, b]\n: 1\n"))


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", f"a: {'[' * 5000}{']' * 5000}\n"])
def test_a_file_nested_without_end_is_refused(write_config, text):
    path = write_config(text)
    with pytest.raises(ConfigError, match=f"^{path}: "):
        config.load(path)


def test_a_name_too_long_for_a_folder_is_refused(write_config):
    with pytest.raises(ConfigError, match="name: is longer than 100 characters"):
        config.load(write_config(MINIMAL | {"name": "x" * 300}))


def test_broken_yaml_names_the_line(write_config):
    path = write_config("train:\n  model: [\n")
    with pytest.raises(ConfigError, match=rf"{path}:\d+: not valid YAML"):
        config.load(path)


def test_missing_file_lists_what_is_shipped():
    with pytest.raises(ConfigError, match="qwen3_4b_grpo"):
        config.load("no/such.yaml")


def test_network_and_other_queues_do_not_share_a_process(write_config):
    pools = {"pools": [{"queues": ["search", "code"]}]}
    with pytest.raises(ConfigError, match=r"workers\.pools\.0\.queues: network-bound"):
        config.load(write_config(MINIMAL | {"workers": pools}))


def test_reward_weights_must_fit_the_kind_of_model(write_config):
    with pytest.raises(ConfigError, match=r"reward\.vl must be true"):
        config.load(write_config(MINIMAL | {"train": {"model": "m", "modality": "vl"}}))


def test_password_in_the_file_is_refused(write_config):
    with pytest.raises(ConfigError) as caught:
        config.load(write_config(MINIMAL | {"queue": {"redis_url": "redis://:hunter2@host:6379/0"}}))
    assert "LLMI_REDIS_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_overrides_reach_nested_fields(write_config):
    assert config.load(write_config(MINIMAL), {"train.steps": 3, "name": "x"}).train.steps == 3


def test_workers_read_their_sections_from_the_saved_file(tmp_path, write_config, monkeypatch):
    run = config.load(
        write_config(MINIMAL), {"queue.redis_url": "redis://h:1/0", "tools.search.library": "/lib"}
    )
    run.save(tmp_path)
    monkeypatch.setenv("LLMI_CONFIG", str(tmp_path / "config.json"))
    assert section("queue", QueueSettings).redis_url == "redis://h:1/0"
    assert section("tools", ToolSettings).search.library == "/lib"
    assert config.check(json.loads((tmp_path / "config.json").read_text()), "saved") == run


@pytest.mark.parametrize("queue", [{}, {"redis_url": "redis://h:1/0"}, {"lease_s": 7.0}])
def test_the_saved_yaml_loads_as_the_same_configuration(tmp_path, write_config, queue):
    run = config.load(write_config(MINIMAL | {"queue": queue}))
    run.save_yaml(tmp_path)
    again = config.load(tmp_path / "config.yaml")
    assert again == run
    assert again.external_redis == run.external_redis


def test_redis_is_external_only_when_named(write_config, monkeypatch):
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    assert not config.load(write_config(MINIMAL)).external_redis
    assert config.load(write_config(MINIMAL), {"queue.redis_url": "redis://h:1/0"}).external_redis
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://h:1/0")
    assert config.load(write_config(MINIMAL)).external_redis


def test_one_data_file_needs_no_list(write_config):
    one = config.load(write_config({**MINIMAL, "data": {"train": "a.parquet", "test": "b.parquet"}}))
    assert (one.data.train, one.data.test) == (("a.parquet",), ("b.parquet",))


def test_the_code_budget_must_be_less_than_the_rollout_timeout(write_config):
    with pytest.raises(ConfigError, match=r"budget_s 60 must be less than train.rollout_timeout_s 50"):
        config.load(write_config(MINIMAL), {"train.rollout_timeout_s": 50})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, r"train.evaluate_every is 5, and data.test names no file to evaluate; name one, or set"),
        (
            {"data.test": "b.parquet", "train.evaluate_timeout_s": 60},
            r"evaluate_timeout_s 60 must be more than tools.code.budget_s 60",
        ),
    ],
)
def test_an_evaluation_needs_files_and_time_for_code(values, words, write_config):
    with pytest.raises(ConfigError, match=words):
        config.load(write_config(MINIMAL), {"train.evaluate_every": 5, **values})
    assert config.load(write_config(MINIMAL), {"data.test": "b.parquet", "train.evaluate_every": 5})
