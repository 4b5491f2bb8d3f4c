"""The runs of a folder, one row each, read from their own folders only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel

from coordinator.config.settings import AGAIN_FILE
from coordinator.state.resume import finished
from coordinator.watch.progress import REWARD
from coordinator.watch.summary import read_metrics
from policy.ledger.entries import LEDGER
from policy.ledger.run_lock import LOCK, exclusive
from policy.settings import METRICS, PAST_METRICS
from policy.sft.settings import EXAMPLES


class RunRow(BaseModel):
    """One run. `step` of `steps` (None: the data decides); `reward`: mean of the last step, None before the
    first; `started`: time of the first ledger entry (ISO 8601, UTC), None before it.

    `state`: `running`: a process of it holds the run's lock; `finished`: its last step is done; `stopped`:
    neither, so `--resume` goes on with it.
    """

    name: str
    folder: str
    state: Literal["running", "finished", "stopped"]
    step: int
    steps: int | None
    reward: float | None
    started: str | None


def list_runs(folder: Path) -> list[RunRow]:
    """The runs directly below `folder`, the newest first; empty when there is no such folder."""
    if not folder.is_dir():
        return []
    rows = [_row(run) for run in folder.iterdir() if (run / AGAIN_FILE).is_file()]
    return sorted(rows, key=lambda row: (row.started or "", row.name), reverse=True)


def _row(run: Path) -> RunRow:
    metrics = read_metrics(run / METRICS) or read_metrics(run / PAST_METRICS)
    rewards = [value for row in metrics if isinstance(value := row.get(REWARD), int | float)]
    step = metrics[-1]["step"] if metrics else 0
    return RunRow(
        name=run.name,
        folder=str(run),
        state=_state(run),
        step=step if isinstance(step, int) else 0,
        steps=_steps(run),
        reward=rewards[-1] if rewards else None,
        started=_started(run),
    )


def _state(run: Path) -> Literal["running", "finished", "stopped"]:
    if in_use(run):
        return "running"
    try:
        return "finished" if finished(run) else "stopped"
    except ValueError:  # a line that this version cannot read
        return "stopped"


def in_use(run: Path) -> bool:
    """Whether a process holds the run's lock, where the file system supports locks."""
    if not (run / LOCK).is_file():
        return False
    try:
        with exclusive(run, 0.0):
            return False
    except TimeoutError:
        return True
    except OSError:  # a folder that may only be read
        return False


def _steps(run: Path) -> int | None:
    try:
        config = yaml.safe_load((run / AGAIN_FILE).read_text(encoding="utf-8"))
        steps = config["sft" if (run / EXAMPLES).is_file() else "train"]["steps"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None


def _started(run: Path) -> str | None:
    times = []
    for path in (run / LEDGER).glob("*.jsonl"):
        with path.open("rb") as file:
            line = file.readline()
        try:
            times.append(float(json.loads(line)["time"]))
        except (ValueError, KeyError, TypeError):
            continue
    return datetime.fromtimestamp(min(times), UTC).isoformat(timespec="seconds") if times else None
