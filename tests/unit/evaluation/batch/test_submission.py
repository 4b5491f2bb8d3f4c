"""Submitting: problems are reported before anything is written or posted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from coordinator.config.settings import ServiceConfig
from coordinator.state.published import service_config
from evaluation.batch import submission
from llmi.demo.prompts.corpus import write_dataset
from workers.errors import ConfigError
from workers.settings import QueueSettings

ENVIRONMENT = ("LLMI_REDIS_URL", "OPENAI_API_KEY", "LLMI_AUTHOR_BASE_URL", "RUBRIC_JUDGE_BASE_URL")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(
        json.dumps([{"prompt": "x", "r1": "y"}, {"prompt": "x", "r1": "y", "images": ["no.png"]}])
    )
    return path


def config(**sections: object) -> ServiceConfig:
    return ServiceConfig.model_validate(sections)


def test_all_problems_are_reported_at_once(bench: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        submission.check(config(rubric={"provider": "openai"}), bench, None)
    received = str(caught.value).splitlines()
    assert len(received) == 3
    assert "author.model" in received[0]
    assert "images[0]: cannot read" in received[1]
    assert "OPENAI_API_KEY" in received[2]


def test_the_judge_of_rewards_is_not_needed_for_a_rubric(bench: Path) -> None:
    settings = config(
        author={"provider": "openai", "base_url": "http://a/v1", "model": "m"},
        judges={"text": {"provider": "openai"}},
    )
    assert submission.check(settings, bench, 1).kind == "rubric"


def test_an_author_that_is_known_to_be_blind_gets_no_pictures(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    settings = config(author={"model": str(tmp_path / "model")})
    assert submission.check(settings, bench, 1)
    with pytest.raises(ConfigError, match=r"reads no images, and .*item 2 has some"):
        submission.check(settings, bench, None)


def test_a_redis_must_be_named_and_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"LLMI_REDIS_URL .*`llmi redis` starts one"):
        service_config("")
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(ConfigError, match="no Redis answers") as caught:
        service_config("")
    assert "hunter2" not in str(caught.value)


def test_without_a_configuration_that_of_the_workers_is_taken(
    queue_settings: QueueSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.state.claim import CONFIG_KEY
    from workers.redis_client import connect_redis

    monkeypatch.setenv("LLMI_REDIS_URL", queue_settings.redis_url)
    with pytest.raises(ConfigError, match="no worker has published its configuration"):
        service_config("")
    with connect_redis(queue_settings.url) as client:
        client.set(CONFIG_KEY, config(blobs={"url": "/somewhere"}, author={"model": "m"}).model_dump_json())
    taken = service_config("")
    assert (taken.blobs.url, taken.author.model) == ("/somewhere", "m")


def test_images_are_kept_where_the_command_was_given(
    queue_settings: QueueSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMI_REDIS_URL", queue_settings.redis_url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"blobs": {"url": "pictures"}}))
    assert service_config("e.yaml").blobs.url == str(tmp_path / "pictures")


def test_a_problem_leaves_nothing_behind(
    bench: Path, tmp_path: Path, queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMI_REDIS_URL", queue_settings.redis_url)
    settings = config(blobs={"url": str(tmp_path / "blobs")}, author={"model": "m"})
    with pytest.raises(ConfigError):
        submission.submit(settings, bench, "e", str(tmp_path / "evals"), None, print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json"]


@pytest.fixture
def rewards(tmp_path: Path, queue_settings: QueueSettings):
    """`rewards(file, **sections)` submits two rows of the training data to a Redis without workers."""
    files = write_dataset(tmp_path / "prompts", seed=1, train=1, test=2)
    author = {"provider": "openai", "base_url": "http://a/v1", "model": "m"}

    def submit(file: str = "test", **sections: object):
        queue = queue_settings.model_dump(mode="json")
        blobs = {"url": str(tmp_path / "blobs")}
        settings = config(**{"author": author, "queue": queue, "blobs": blobs} | sections)
        evals = str(tmp_path / "evals")
        return submission.submit(settings, files[file], f"e-{file}", evals, None, lambda line: None)[0]

    return submit


JUDGE = {"provider": "openai", "base_url": "http://j/v1", "model": "reader"}


@pytest.mark.parametrize(
    "judges", [{"text": JUDGE}, {"image": JUDGE}, {"text": JUDGE, "image": JUDGE}], ids=str
)
def test_a_reward_by_other_judges_is_another_evaluation(rewards, judges) -> None:
    rewards()
    with pytest.raises(ConfigError, match=r"other judges \(rules for text, rules for images\)"):
        rewards(judges=judges)
    rewards(judges={"text": {"timeout_s": 300}})  # the same judge, given more time


def test_judges_that_moved_to_another_host_are_the_same(rewards) -> None:
    rewards(judges={"text": JUDGE})
    rewards(judges={"text": {**JUDGE, "base_url": "http://elsewhere/v1"}})


@pytest.mark.parametrize(("file", "given", "vl"), [
    ("test_mm", False, True),
    ("test", False, False),
    ("test", True, True),  # a model that reads images, on rows that have none
])  # fmt: skip
def test_rows_with_images_get_the_weights_of_a_model_that_reads_them(rewards, file, given, vl) -> None:
    assert rewards(file, reward={"vl": given}).manifest.reward.vl == vl
    rewards(file, reward={"vl": given})  # and again under the same name
