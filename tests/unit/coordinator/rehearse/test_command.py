"""`llmi train --rehearse` refuses what it cannot rehearse before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.main import app
from workers.errors import ConfigError
from workers.storage.cache import CACHE_ENV


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "cache"))


def error_of(*arguments: str) -> str:
    error = CliRunner().invoke(app, ["train", *arguments, "--rehearse"]).exception
    assert isinstance(error, ConfigError)
    return str(error)


@pytest.mark.parametrize("option", ["--dry-run", "--resume"])
def test_it_goes_with_no_other_way_to_run(option: str) -> None:
    assert "goes with neither --dry-run nor --resume" in error_of("qwen3_4b_grpo", option)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "holds no config.json" in error_of(
        "qwen3_4b_grpo", f"train.model={tmp_path}", "--dir", str(tmp_path)
    )
    assert list(tmp_path.iterdir()) == []


def test_what_verl_refuses_of_the_configured_run_is_refused(tmp_path: Path) -> None:
    unknown = "train.verl={actor_rollout_ref: {actor: {no_such_option: 1}}}"
    assert "no_such_option" in error_of("qwen3_4b_grpo", unknown, "--dir", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_refused(tmp_path: Path) -> None:
    said = error_of("qwen3_4b_grpo", "data.train=absent.parquet", "--dir", str(tmp_path))
    assert "data: absent.parquet does not exist" in said
