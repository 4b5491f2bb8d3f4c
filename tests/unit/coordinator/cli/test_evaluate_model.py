"""`llmi evaluate submit --model`: the author that is posted."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli.commands import evaluate
from coordinator.config.settings import ServiceConfig, check
from coordinator.state import published
from evaluation.batch import submission


class Posted(Exception):
    """Carries the author instead of posting."""


@pytest.fixture
def posted(tmp_path, monkeypatch):
    """The model and the system prompt that are posted for a value of --model."""

    def post(config: ServiceConfig, *_: object) -> None:
        raise Posted(config.author.model, config.author.system_prompt)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "service_config", lambda path: ServiceConfig())
    monkeypatch.setattr(submission, "submit", post)

    def author(model: str) -> tuple[object, ...]:
        with pytest.raises(Posted) as caught:
            evaluate.submit(Path("bench.json"), model=model)
        return caught.value.args

    return author


def test_a_checkpoint_of_a_run_is_posted_as_its_exported_folder(posted, tmp_path):
    folder = tmp_path / "runs" / "mine" / "exports" / "step-4"
    folder.mkdir(parents=True)
    run = {"name": "mine", "train": {"model": "m", "system_prompt": False}, "data": {"train": ["a.parquet"]}}
    check(run, "here").save_yaml(tmp_path / "runs" / "mine")
    assert posted("mine@4") == (str(folder), False)


def test_a_folder_is_posted_by_its_absolute_path_and_a_hub_id_as_it_is(posted, tmp_path):
    (tmp_path / "model").mkdir()
    assert posted("model") == (str(tmp_path / "model"), True)
    assert posted("Qwen/Qwen3-4B") == ("Qwen/Qwen3-4B", True)
    assert posted("") == ("", True)
