"""`llmi runs list`: one row for each run of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from coordinator.config.settings import AGAIN_FILE
from coordinator.watch.run_list import list_runs
from policy.document import Task
from policy.ledger.entries import Entry, Finished, Started
from policy.ledger.run_lock import shared
from policy.ledger.writer import LedgerWriter
from policy.settings import METRICS


def append(run: Path, role: str, entry: Entry) -> None:
    writer = LedgerWriter(run, role)
    writer.append(entry)
    writer.close()


def make_run(folder: Path, name: str, started: float, steps: int | None = 4) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    (run / AGAIN_FILE).write_text(yaml.safe_dump({"train": {"steps": steps}}))
    task = Task(question="Write about cats.")
    append(run, "rollouts", Started(time=started, rollout_id="a_0-0", task=task, step=1))
    return run


def test_rows_have_state_step_reward_and_start(tmp_path):
    old, new = make_run(tmp_path, "old", 1000.0), make_run(tmp_path, "new", 2000.0)
    (tmp_path / "no-run").mkdir()
    lines = [{"step": step, "data": {"critic/score/mean": step / 10}} for step in (1, 2)]
    (old / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    append(old, "coordinator", Finished(time=1500.0))
    with shared(new):
        rows = list_runs(tmp_path)
    assert [(row.name, row.state, row.step, row.steps, row.reward) for row in rows] == [
        ("new", "running", 0, 4, None),
        ("old", "finished", 2, 4, 0.2),
    ]
    assert rows[1].started == "1970-01-01T00:16:40+00:00"
    assert list_runs(tmp_path)[0].state == "stopped"


def test_a_folder_that_is_not_there_has_no_runs(tmp_path):
    assert list_runs(tmp_path / "runs") == []
