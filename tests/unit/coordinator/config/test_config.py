"""Configurations: the shipped ones have the published values; wrong input is reported with field, file and
cure."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fake_services import png

from coordinator.check import folders, inputs, preflight, services
from coordinator.config import settings as config
from coordinator.config.files import read, shipped
from policy.train.verl_options import hydra_overrides
from workers.errors import ConfigError
from workers.settings import QueueSettings, ToolSettings, section

MINIMAL = {"train": {"model": "some/model"}, "data": {"train": ["a.parquet"]}}


@pytest.fixture
def file(tmp_path):
    def write(document):
        path = tmp_path / "run.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return path

    return write


RUNS = [name for name in shipped() if "train" in read(name)[0]]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_configuration_loads_for_workers(name):
    assert config.load_services(name).workers.pools


@pytest.mark.parametrize("name", RUNS)
def test_every_shipped_configuration_resolves_to_verl_options(name, tmp_path):
    run = config.load(name)
    overrides = hydra_overrides(run.train, run=tmp_path, data_train=[Path("a")], data_test=[Path("b")])
    assert f"actor_rollout_ref.model.path='{run.train.model}'" in overrides


def test_five_runs_are_shipped():
    assert RUNS == [
        "demo",
        "demo_vl",
        "qwen2_5_vl_7b_grpo",
        "qwen3_30b_a3b_gspo",
        "qwen3_4b_grpo",
    ]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "qwen3_4b_grpo",
            {"loss": "grpo", "batch_size": 32, "warmup_steps": 5, "aggregation": "token-mean", "clip_c": 10.0,
             "prompt_tokens": 8192, "response_tokens": 24576},
        ),
        (
            "qwen3_30b_a3b_gspo",
            {"loss": "gspo", "batch_size": 16, "warmup_steps": 6, "aggregation": "seq-mean-token-mean",
             "clip_low": 3e-4, "clip_high": 4e-4},
        ),
        (
            "qwen2_5_vl_7b_grpo",
            {"loss": "grpo", "batch_size": 32, "warmup_steps": 4, "prompt_tokens": 16384,
             "response_tokens": 16384, "image_max_pixels": 1024 * 1024, "modality": "vl"},
        ),
    ],
)  # fmt: skip
def test_published_hyper_parameters(name, published):
    train = config.load(name).train
    common = {"n": 8, "lr": 1e-6, "schedule": "cosine", "min_lr_ratio": 0.01, "weight_decay": 0.1,
              "grad_clip": 1.0, "entropy": 0.0, "epochs": 1,
              "tensor_parallel": 2, "sequence_parallel": 2}  # fmt: skip
    expected = common | published
    assert {key: getattr(train, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("section_name", "key", "hint"),
    [
        ("train", "learning_rte", "train.learning_rte: unknown key"),
        ("train", "batch_sise", "did you mean train.batch_size?"),
        ("queue", "redis_urll", "did you mean queue.redis_url?"),
    ],
)
def test_unknown_key_names_file_field_and_nearest(file, section_name, key, hint):
    path = file(MINIMAL | {section_name: {**MINIMAL.get(section_name, {}), key: 1}})
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(path) in str(caught.value)
    assert f"{section_name}.{key}" in str(caught.value)
    assert hint in str(caught.value)


def test_key_in_the_wrong_section_is_suggested_in_the_right_one(file):
    with pytest.raises(ConfigError, match=r"lr: unknown key; did you mean train\.lr\?"):
        config.load(file(MINIMAL | {"lr": 1}))


def test_wrong_value_names_field_and_value(file):
    with pytest.raises(ConfigError, match=r"train\.n: .*greater than or equal to 2 \(it is 1\)"):
        config.load(file(MINIMAL | {"train": {"model": "m", "n": 1}}))


def test_all_problems_are_named_at_once(file):
    with pytest.raises(ConfigError) as caught:
        config.load(file({"train": {"model": "m", "n": 1, "lr": -1}}))
    assert {"train.n", "train.lr", "data"} <= {line.split(": ")[1] for line in str(caught.value).splitlines()}


def test_key_given_twice_is_refused(file):
    with pytest.raises(ConfigError, match="'lr' is given twice"):
        config.load(file("train:\n  lr: 1\n  lr: 2\n"))


def test_a_list_as_key_is_refused_with_its_line(file):
    with pytest.raises(ConfigError, match=r":1: not valid YAML: found unhashable key"):
        config.load(file("? [a, b]\n: 1\n"))


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", f"a: {'[' * 5000}{']' * 5000}\n"])
def test_a_file_nested_without_end_is_refused(file, text):
    path = file(text)
    with pytest.raises(ConfigError, match=f"^{path}: "):
        config.load(path)


def test_a_name_too_long_for_a_folder_is_refused(file):
    with pytest.raises(ConfigError, match="name: is longer than 100 characters"):
        config.load(file(MINIMAL | {"name": "x" * 300}))


def test_broken_yaml_names_the_line(file):
    path = file("train:\n  model: [\n")
    with pytest.raises(ConfigError, match=rf"{path}:\d+: not valid YAML"):
        config.load(path)


def test_missing_file_lists_what_is_shipped():
    with pytest.raises(ConfigError, match="qwen3_4b_grpo"):
        config.load("no/such.yaml")


def test_network_and_other_queues_do_not_share_a_process(file):
    pools = {"pools": [{"queues": ["search", "code"]}]}
    with pytest.raises(ConfigError, match=r"workers\.pools\.0\.queues: network-bound"):
        config.load(file(MINIMAL | {"workers": pools}))


def test_reward_weights_must_fit_the_kind_of_model(file):
    with pytest.raises(ConfigError, match=r"reward\.vl must be true"):
        config.load(file(MINIMAL | {"train": {"model": "m", "modality": "vl"}}))


def test_password_in_the_file_is_refused(file):
    with pytest.raises(ConfigError) as caught:
        config.load(file(MINIMAL | {"queue": {"redis_url": "redis://:hunter2@host:6379/0"}}))
    assert "LLMI_REDIS_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_overrides_reach_nested_fields(file):
    assert config.load(file(MINIMAL), {"train.steps": 3, "name": "x"}).train.steps == 3


def test_workers_read_their_sections_from_the_saved_file(tmp_path, file, monkeypatch):
    run = config.load(file(MINIMAL), {"queue.redis_url": "redis://h:1/0", "tools.search.library": "/lib"})
    run.save(tmp_path)
    monkeypatch.setenv("LLMI_CONFIG", str(tmp_path / "config.json"))
    assert section("queue", QueueSettings).redis_url == "redis://h:1/0"
    assert section("tools", ToolSettings).search.library == "/lib"
    assert config.check(json.loads((tmp_path / "config.json").read_text()), "saved") == run


@pytest.mark.parametrize("queue", [{}, {"redis_url": "redis://h:1/0"}, {"lease_s": 7.0}])
def test_the_saved_yaml_loads_as_the_same_configuration(tmp_path, file, queue):
    run = config.load(file(MINIMAL | {"queue": queue}))
    run.save_for_people(tmp_path)
    again = config.load(tmp_path / "config.yaml")
    assert again == run
    assert again.external_redis == run.external_redis


def test_redis_is_external_only_when_named(file, monkeypatch):
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    assert not config.load(file(MINIMAL)).external_redis
    assert config.load(file(MINIMAL), {"queue.redis_url": "redis://h:1/0"}).external_redis
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://h:1/0")
    assert config.load(file(MINIMAL)).external_redis


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:hunter2@127.0.0.1:1/0", "127.0.0.1:1"),
        ("redis://:hunter2@host:abc/0", "not a Redis URL"),
        ("redis://:hunt#er2@host/0", "percent-encode"),
    ],
)
def test_unreachable_redis_is_named_without_its_password(monkeypatch, url, said):
    monkeypatch.setenv("LLMI_REDIS_URL", url)
    [problem] = services.redis(QueueSettings())
    assert said in problem
    assert "LLMI_REDIS_URL" in problem
    assert "hunt" not in problem


def test_a_ray_cluster_needs_a_redis_that_it_can_reach(file, monkeypatch):
    run = config.load(file(MINIMAL))
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    assert services.cluster(run) == []
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "LLMI_REDIS_URL" in services.cluster(run)[0]
    assert services.cluster(config.load(file(MINIMAL), {"queue.redis_url": "redis://h:1/0"})) == []


def parquet(path, images):
    info = {"image_num": 1, "tools": ["search"], "question": "What?", "split": "train"}
    row = {"prompt": "What? <image>", "images": images, "data_source": "interleaved_mm", "extra_info": info}
    pd.DataFrame([row]).to_parquet(path)
    return str(path)


def test_images_for_a_text_model_are_named(file, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", [png()])
    [problem] = inputs.data(config.load(file(MINIMAL), {"data.train": [rows]}))
    assert rows in problem
    assert "train.modality" in problem
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    assert inputs.data(config.load(file(MINIMAL), sees)) == []


def test_a_missing_image_file_is_named_with_file_and_row(file, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", ["gone.png"])
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(file(MINIMAL), sees))
    for expected in ("data.train", rows, "row 0", "gone.png"):
        assert expected in problem


def test_one_data_file_needs_no_list(file):
    one = config.load(file({**MINIMAL, "data": {"train": "a.parquet", "test": "b.parquet"}}))
    assert (one.data.train, one.data.test) == (("a.parquet",), ("b.parquet",))


def test_bytes_that_are_no_image_are_named_with_file_and_row(file, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", [b"hello"])
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(file(MINIMAL), sees))
    assert problem.startswith(f"data.train: {rows}: row 0: images[0]: image refused: not a readable image")


def test_a_row_with_too_many_images_is_named(file, tmp_path):
    info = {"image_num": 1, "tools": ["edit"], "question": "What?", "split": "train"}
    row = {"prompt": "What?", "images": [png()] * 3, "data_source": "interleaved_mm", "extra_info": info}
    pd.DataFrame([row]).to_parquet(tmp_path / "mm.parquet")
    sees = {"data.train": [str(tmp_path / "mm.parquet")], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(file(MINIMAL), sees | {"train.max_input_images": 2}))
    assert "row 0: has 3 images, and train.max_input_images is 2" in problem


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_image_store_that_cannot_be_written_is_named(file, tmp_path, monkeypatch, prefix):
    run = config.load(file(MINIMAL), {"blobs.url": f"{prefix}{tmp_path}/a/b"})
    assert folders.blobs(run) == []
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    [problem] = folders.blobs(run)
    assert problem.startswith("blobs.url")
    assert f"may not write in {tmp_path};" in problem


@pytest.mark.parametrize("url", ["blobs", "s3://bucket/blobs"])
def test_an_image_store_in_the_run_or_elsewhere_is_not_checked(file, monkeypatch, url):
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    assert folders.blobs(config.load(file(MINIMAL), {"blobs.url": url})) == []


def test_a_run_folder_below_a_file_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    [problem] = folders.run_folder(tmp_path / "runs" / "x")
    assert problem.startswith("--dir")
    assert "is no folder" in problem


def test_preflight_reports_every_problem_at_once(tmp_path, file, monkeypatch):
    for name in ("SERP_API_KEY", "QWEN_IMAGE_SERVER_URL", "LLM_JUDGE_BASE_URL", "LLMI_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    run = config.load(
        file(MINIMAL),
        {
            "train.model": str(tmp_path / "absent"),
            "data.train": [str(broken)],
            "tools.search.provider": "serpapi",
            "tools.diffusion.provider": "qwen_server",
            "judges.text.provider": "openai",
        },
    )
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError) as caught:
        preflight.check(run, tmp_path / "runs")
    for expected in ("run folder exists", "SERP_API_KEY", "QWEN_IMAGE_SERVER_URL", "LLM_JUDGE_BASE_URL",
                     "train.model", "broken.parquet"):  # fmt: skip
        assert expected in str(caught.value)


def test_the_code_budget_must_be_less_than_the_rollout_timeout(file):
    with pytest.raises(ConfigError, match=r"budget_s 60 must be less than train.rollout_timeout_s 50"):
        config.load(file(MINIMAL), {"train.rollout_timeout_s": 50})
