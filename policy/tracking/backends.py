"""What each tracker of `train.trackers` needs: its packages, and where it keeps its files.

Invariants:
- a variable of the environment that the user set stays as it is;
- without a key a tracker writes files and connects to nothing;
- the same run has the same id in a tracker after a resume.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from policy.train_sections import TrackerName

# MLflow's packages include those of its default store here, an SQLite file.
PACKAGES: dict[TrackerName, tuple[str, ...]] = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "swanlab": ("swanlab",),
}
MLFLOW_RUN = "mlflow.run_id"  # file of a run: MLflow chooses the ids of its runs


def missing(trackers: Iterable[TrackerName]) -> list[str]:
    """A problem for each tracker with a package that is not installed."""
    return [
        f"train.trackers: {name} needs the package {' and '.join(absent)}, which is not installed; install "
        f"llmi with its extra trackers (docs/training.md), or take {name} off the list"
        for name in trackers
        if (absent := [package for package in PACKAGES[name] if not importlib.util.find_spec(package)])
    ]


def variables(
    name: TrackerName, run: Path, run_id: uuid.UUID, environment: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set for a tracker, besides those in `environment`.

    `run`: the folder of the run. `run_id`: its unique id.
    """
    wanted = _DEFAULTS[name](run.absolute(), run_id.hex, environment)
    return {variable: value for variable, value in wanted.items() if variable not in environment}


def _wandb(run: Path, run_id: str, environment: Mapping[str, str]) -> dict[str, str]:
    online = "WANDB_API_KEY" in environment
    return {
        "WANDB_DIR": str(run),
        "WANDB_MODE": "online" if online else "offline",
        "WANDB_ERROR_REPORTING": "true" if online else "false",  # of its own errors; not part of the mode
        "WANDB_RUN_ID": run_id,
        "WANDB_RESUME": "allow",
    }


def _tensorboard(run: Path, run_id: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {"TENSORBOARD_DIR": str(run / "tensorboard")}


def _mlflow(run: Path, run_id: str, environment: Mapping[str, str]) -> dict[str, str]:
    before = run / MLFLOW_RUN
    known = {"MLFLOW_RUN_ID": before.read_text(encoding="utf-8")} if before.exists() else {}
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{run / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",  # of its use, to mlflow-telemetry.io
        **known,
    }


def _swanlab(run: Path, run_id: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "SWANLAB_LOG_DIR": str(run / "swanlab"),
        "SWANLAB_MODE": "cloud" if "SWANLAB_API_KEY" in environment else "offline",
        "SWANLAB_RUN_ID": run_id,
        "SWANLAB_RESUME": "allow",
    }


_DEFAULTS = {"wandb": _wandb, "tensorboard": _tensorboard, "mlflow": _mlflow, "swanlab": _swanlab}
