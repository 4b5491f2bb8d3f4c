"""What each tracker is given: packages, folders, ids; and that a secret never enters a configuration."""

from __future__ import annotations

import uuid
from typing import get_args

import pytest
from pydantic import ValidationError

from policy.settings import TrainSettings
from policy.tracking import backends
from policy.tracking.backends import missing, variables
from policy.train_sections import TrackerName

RUN_ID = uuid.UUID(int=7)
NAMES = get_args(TrackerName)


def test_every_tracker_is_one_of_verl():
    from verl.utils.tracking import Tracking

    assert set(NAMES) <= set(Tracking.supported_backend)
    assert set(NAMES) == set(backends.PACKAGES)


def test_a_tracker_without_its_packages_is_a_problem_that_names_the_extra(monkeypatch):
    present = {"wandb", "mlflow", "sqlalchemy"}
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: name in present or None)
    assert missing(["wandb"]) == []
    assert missing(["mlflow"]) == [
        "train.trackers: mlflow needs the package alembic, which is not installed; install llmi with its "
        "extra trackers (docs/training.md), or take mlflow off the list"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_in_the_folder_of_the_run(name, tmp_path):
    found = variables(name, tmp_path, RUN_ID, {})
    assert [value for value in found.values() if str(tmp_path) in value]


@pytest.mark.parametrize(("name", "online"), [("wandb", "online"), ("swanlab", "cloud")])
def test_nothing_is_sent_without_a_key(name, online, tmp_path):
    mode, key = f"{name.upper()}_MODE", f"{name.upper()}_API_KEY"
    assert variables(name, tmp_path, RUN_ID, {})[mode] == "offline"
    assert variables(name, tmp_path, RUN_ID, {key: "planted"})[mode] == online
    assert "planted" not in variables(name, tmp_path, RUN_ID, {key: "planted"}).values()


def test_no_tracker_reports_its_own_use_without_a_key(tmp_path):
    assert variables("mlflow", tmp_path, RUN_ID, {})["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert variables("wandb", tmp_path, RUN_ID, {})["WANDB_ERROR_REPORTING"] == "false"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_set_stays(name, tmp_path):
    before = variables(name, tmp_path, RUN_ID, {})
    assert variables(name, tmp_path, RUN_ID, dict.fromkeys(before, "mine")) == {}


@pytest.mark.parametrize("name", ["wandb", "swanlab"])
def test_a_resumed_run_has_the_same_id(name, tmp_path):
    first, again = (variables(name, tmp_path, RUN_ID, {}) for _ in range(2))
    assert first[f"{name.upper()}_RUN_ID"] == again[f"{name.upper()}_RUN_ID"] == RUN_ID.hex


def test_mlflow_continues_its_own_run(tmp_path):
    assert "MLFLOW_RUN_ID" not in variables("mlflow", tmp_path, RUN_ID, {})
    (tmp_path / backends.MLFLOW_RUN).write_text("abc")
    assert variables("mlflow", tmp_path, RUN_ID, {})["MLFLOW_RUN_ID"] == "abc"


def test_an_unknown_tracker_is_refused_with_the_list():
    with pytest.raises(ValidationError, match="'wandb', 'tensorboard', 'mlflow' or 'swanlab'"):
        TrainSettings.model_validate({"model": "m", "trackers": ["wandB"]})


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "hf_token"])
def test_a_secret_in_the_options_of_verl_is_refused_and_not_shown(name):
    env = {"ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": {name: "planted-4711", "OMP": "1"}}}}}
    with pytest.raises(ValidationError) as error:
        TrainSettings.model_validate({"model": "m", "verl": env})
    message = error.value.errors()[0]["msg"]
    assert f" ray_kwargs.ray_init.runtime_env.env_vars.{name}: this would be printed" in message
    assert "planted" not in message
