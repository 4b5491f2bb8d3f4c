"""Paths of a configuration are resolved once, for the checks and for the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from coordinator.check import dry_run, folders, preflight
from coordinator.config.files import SHIPPED, find
from coordinator.config.paths import placed
from coordinator.config.settings import load, load_services
from workers.errors import ConfigError
from workers.settings import expanded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    for name in ("models/x", "data", "library", "sd"):
        (home / name).mkdir(parents=True)
    (home / "models/x/config.json").write_text("{}")
    (home / "sd/model_index.json").write_text("{}")
    (home / "library/captions.jsonl").write_text("{}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MODELS", str(home / "models"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return home


def written(root: str) -> dict:
    return {
        "train": {"model": f"{root}/models/x", "steps": 1},
        "data": {"train": [f"{root}/data/a.parquet"], "test": [f"{root}/data/b.parquet"]},
        "blobs": {"url": f"{root}/blobs"},
        "author": {"model": f"{root}/models/x"},
        "tools": {
            "search": {"library": f"{root}/library"},
            "diffusion": {"model": f"{root}/sd"},
            "edit": {"model": f"{root}/sd"},
        },
    }


@pytest.mark.parametrize("root", ["~", "$HOME", "${HOME}", "home", "./home"])
def test_every_path_of_a_configuration_becomes_absolute(root: str, tmp_path: Path, home: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(written(root)))
    config = load("run.yaml")
    assert [*preflight.missing(config), *folders.blobs(config)] == []
    used = placed(config)
    assert used.train.model == str(home / "models/x")
    assert used.author.model == str(home / "models/x")
    assert (used.data.train, used.data.test) == (
        (str(home / "data/a.parquet"),),
        (str(home / "data/b.parquet"),),
    )
    assert used.blobs.url == str(home / "blobs")
    assert used.tools.search.library == str(home / "library")
    assert used.tools.diffusion.model == used.tools.edit.model == str(home / "sd")
    assert placed(used) == used


def test_a_dry_run_shows_the_paths_of_the_trainer(tmp_path: Path, home: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(written("~")))
    shown = dry_run.resolve(load("run.yaml", {"name": "r"}), tmp_path / "runs", Console(quiet=True))
    assert f"actor_rollout_ref.model.path={home}/models/x" in " ".join(shown["overrides"]).replace("'", "")


def test_names_of_the_hub_and_urls_stay_as_they_are() -> None:
    document = written("~")
    document["train"]["model"] = "Qwen/Qwen3-4B"
    document["blobs"]["url"] = "s3://bucket/$NOWHERE/~"
    document["tools"]["diffusion"] = {"provider": "openai", "model": "seedream", "base_url": "http://h/v1"}
    Path("run.yaml").write_text(yaml.safe_dump(document))
    used = placed(load("run.yaml"))
    assert used.train.model == "Qwen/Qwen3-4B"
    assert used.blobs.url == "s3://bucket/$NOWHERE/~"
    assert used.tools.diffusion.model == "seedream"


@pytest.mark.parametrize("path", ["$NOWHERE/x", "${NOWHERE}/x", "/a/$NOWHERE", "~no-such-user/x"])
def test_an_unset_variable_is_an_error_of_its_field(path: str, tmp_path: Path) -> None:
    document = written("~")
    document["train"]["model"] = path
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"train\.model: .*(NOWHERE, which|home folder of an unknown)"):
        load("run.yaml")


def test_a_file_url_is_expanded_too(home: Path) -> None:
    assert expanded("file://$MODELS/x") == f"file://{home}/models/x"


@pytest.mark.parametrize("path", ["path/to/demo.yaml", "path/demo", "./demo", "demo.yaml", "~/qwen3_4b_grpo"])
def test_a_missing_path_is_never_a_shipped_configuration(path: str) -> None:
    with pytest.raises(ConfigError, match="no such configuration") as caught:
        load_services(path)
    assert Path(path).expanduser().name in str(caught.value)


def test_a_shipped_configuration_is_found_by_its_name_and_a_file_comes_first(tmp_path: Path) -> None:
    assert find("demo") == SHIPPED / "demo.yaml"
    (tmp_path / "demo").write_text("{}")
    assert find("demo") == Path("demo")
