"""Checks of Redis, Ray, folders and data, one problem each."""

import pandas as pd
import pytest
from fake_services import png
from rich.console import Console

from coordinator.check import dry_run, folders, inputs, preflight, services
from coordinator.config import settings as config
from workers.errors import ConfigError
from workers.settings import QueueSettings

MINIMAL = {"train": {"model": "some/model"}, "data": {"train": ["a.parquet"]}}


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


def test_a_ray_cluster_needs_a_redis_that_it_can_reach(write_config, monkeypatch):
    run = config.load(write_config(MINIMAL))
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    assert services.cluster(run) == []
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert "LLMI_REDIS_URL" in services.cluster(run)[0]
    assert services.cluster(config.load(write_config(MINIMAL), {"queue.redis_url": "redis://h:1/0"})) == []


def parquet(path, images):
    info = {"image_num": 1, "tools": ["search"], "question": "What?", "split": "train"}
    row = {"prompt": "What? <image>", "images": images, "data_source": "interleaved_mm", "extra_info": info}
    pd.DataFrame([row]).to_parquet(path)
    return str(path)


def test_images_for_a_text_model_are_named(write_config, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", [png()])
    [problem] = inputs.data(config.load(write_config(MINIMAL), {"data.train": [rows]}))
    assert rows in problem
    assert "train.modality" in problem
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    assert inputs.data(config.load(write_config(MINIMAL), sees)) == []


def test_a_missing_image_file_is_named_with_file_and_row(write_config, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", ["gone.png"])
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(write_config(MINIMAL), sees))
    for expected in ("data.train", rows, "row 0", "gone.png"):
        assert expected in problem


def test_bytes_that_are_no_image_are_named_with_file_and_row(write_config, tmp_path):
    rows = parquet(tmp_path / "mm.parquet", [b"hello"])
    sees = {"data.train": [rows], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(write_config(MINIMAL), sees))
    assert problem.startswith(f"data.train: {rows}: row 0: images[0]: image refused: not a readable image")


def test_a_row_with_too_many_images_is_named(write_config, tmp_path):
    info = {"image_num": 1, "tools": ["edit"], "question": "What?", "split": "train"}
    row = {"prompt": "What?", "images": [png()] * 3, "data_source": "interleaved_mm", "extra_info": info}
    pd.DataFrame([row]).to_parquet(tmp_path / "mm.parquet")
    sees = {"data.train": [str(tmp_path / "mm.parquet")], "train.modality": "vl", "reward.vl": True}
    [problem] = inputs.data(config.load(write_config(MINIMAL), sees | {"train.max_input_images": 2}))
    assert "row 0: has 3 images, and train.max_input_images is 2" in problem


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_image_store_that_cannot_be_written_is_named(write_config, tmp_path, monkeypatch, prefix):
    run = config.load(write_config(MINIMAL), {"blobs.url": f"{prefix}{tmp_path}/a/b"})
    assert folders.blobs(run) == []
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    [problem] = folders.blobs(run)
    assert problem.startswith("blobs.url")
    assert f"may not write in {tmp_path};" in problem


@pytest.mark.parametrize("url", ["blobs", "s3://bucket/blobs"])
def test_an_image_store_in_the_run_or_elsewhere_is_not_checked(write_config, monkeypatch, url):
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    assert folders.blobs(config.load(write_config(MINIMAL), {"blobs.url": url})) == []


def test_a_run_folder_below_a_file_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    [problem] = folders.run_folder(tmp_path / "runs" / "x")
    assert problem.startswith("--dir")
    assert "is no folder" in problem


def test_preflight_reports_every_problem_at_once(tmp_path, write_config, monkeypatch):
    for name in ("SERP_API_KEY", "QWEN_IMAGE_SERVER_URL", "LLM_JUDGE_BASE_URL", "LLMI_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    run = config.load(
        write_config(MINIMAL),
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


def test_an_uncorrected_asynchronous_run_is_refused_before_it_starts(tmp_path, write_config):
    run = config.load(write_config(MINIMAL), {"name": "x", "train.rollout_is": None})
    uncorrected = r"train\.rollout_is: .* uncorrected.*; set train\.rollout_is: token"
    with pytest.raises(ConfigError, match=uncorrected):
        preflight.check(run, tmp_path / "runs" / "x")
    with pytest.raises(ConfigError, match=uncorrected):
        dry_run.resolve(run, tmp_path / "runs", Console(quiet=True))


def test_what_train_verl_leaves_uncorrected_is_refused_too(tmp_path, write_config):
    off = {"train.verl": {"algorithm": {"rollout_correction": {"rollout_is": None}}}}
    with pytest.raises(ConfigError, match="uncorrected"):
        preflight.check(config.load(write_config(MINIMAL), {"name": "x", **off}), tmp_path / "runs" / "x")
