"""Resuming `llmi sft`: what is refused, and how the folder is prepared."""

from __future__ import annotations

import json

import pytest

from coordinator.config.settings import check
from coordinator.sft.resume import last_step, problems, rewind
from coordinator.state import resume as grpo
from coordinator.watch.run_list import list_runs
from policy.ledger.writer import LedgerWriter


def configured(train: dict | None = None, **sft):
    document = {"name": "warm", "train": {"model": "m", **(train or {})}, "data": {"train": ["a.parquet"]}}
    return check({**document, "sft": {"source": "first", "steps": 12, **sft}}, "here")


@pytest.fixture
def run(tmp_path):
    """The folder of a training that died after step 7, with checkpoints of the steps 3 and 5."""
    folder = tmp_path / "warm"
    folder.mkdir()
    configured().save_yaml(folder)
    (folder / "examples.parquet").touch()
    for step in (3, 5, 7):  # that of step 7 is incomplete
        place = folder / "checkpoints" / f"global_step_{step}"
        place.mkdir(parents=True)
        for name in ("fsdp_config.json", "data_0.pt", "data_1.pt"):
            (place / name).touch()
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("5")
    rows = [{"step": step, "data": {"train/loss": 1.0}} for step in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def places(run) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints" / "global_step_5").glob("data_*.pt"))


def test_it_goes_on_after_the_last_complete_checkpoint(run):
    assert problems(configured(), run) == []
    assert rewind(run, per_epoch=4) == last_step(run) == 5
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()] == [1, 2, 3, 4, 5]
    assert places(run) == ["data_0.pt", "data_1.pt"]


def test_at_the_end_of_an_epoch_the_next_one_starts_at_its_beginning(run):
    assert rewind(run, per_epoch=5) == 5
    assert places(run) == []


def test_without_a_checkpoint_it_starts_again(run):
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").unlink()
    assert rewind(run, per_epoch=5) == 0
    assert (run / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("other", [{"lr": 1.0}, {"batch_size": 2}, {"steps": 13}, {"train": {"seed": 2}}])
def test_another_training_is_refused(run, other):
    [problem] = problems(configured(**other), run)
    assert "set that again, or start another run" in problem


def test_what_the_folder_has_may_change(run):
    assert problems(configured(source=(), min_reward=0.5, save_every=2), run) == []


def test_a_finished_training_is_refused(run):
    writer = LedgerWriter(run, "coordinator")
    writer.finished()
    writer.close()
    assert problems(configured(), run) == [f"{run}: this run is finished; there is nothing to resume"]


def test_the_two_kinds_of_runs_are_resumed_by_their_own_commands(run):
    assert grpo.problems(configured(), run) == [
        f"{run}: is a run of llmi sft; resume it with llmi sft --resume, or name another"
    ]
    (run / "examples.parquet").unlink()
    assert problems(configured(), run) == [
        f"{run}: is no run of llmi sft; resume it with llmi train --resume, or name another"
    ]
    assert grpo.problems(configured(lr=1.0), run) == []  # a GRPO run does not read the section


def test_it_is_listed_with_its_own_steps(run):
    [row] = list_runs(run.parent)
    assert (row.name, row.state, row.step, row.steps) == ("warm", "stopped", 7, 12)
