"""Which checkpoints stay on the disk, and what of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from policy.train import checkpoints
from policy.train.checkpoints import CheckpointRecorder
from policy.train.kept_checkpoints import best, prune, resumable, steps

WEIGHTS = {"actor/fsdp_config.json", "actor/huggingface/config.json", "actor/model_world_size_1_rank_0.pt"}
REST = {
    "actor/extra_state_world_size_1_rank_0.pt",
    "actor/optim_world_size_1_rank_0.pt",
    "data.pt",
    "transfer_queue/storage/unit_0.bin",
}


def save(run: Path, step: int) -> Path:
    """The files of verl for an asynchronous run."""
    folder = run / "checkpoints" / f"global_step_{step}"
    for name in WEIGHTS | REST:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def log_scores(run: Path, scores: dict[int, float]) -> None:
    rows = [{"step": step, "data": {"critic/score/mean": score}} for step, score in scores.items()]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def files(run: Path, step: int) -> set[str]:
    folder = run / "checkpoints" / f"global_step_{step}"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def folders(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").iterdir() if path.is_dir()}


def test_two_newest_stay_whole_and_of_the_best_the_weights(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    log_scores(tmp_path, {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3})
    prune(tmp_path, keep=2)
    assert {step: files(tmp_path, step) for step in steps(tmp_path)} == {
        2: WEIGHTS,
        4: WEIGHTS | REST,
        5: WEIGHTS | REST,
    }
    assert folders(tmp_path) == {"global_step_2", "global_step_4", "global_step_5"}
    assert [resumable(tmp_path, step) for step in (2, 4, 5)] == [False, True, True]


def test_as_many_weights_stay_as_wanted(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)
    prune(tmp_path, keep=4)
    assert steps(tmp_path) == [3, 4, 5, 6]
    assert files(tmp_path, 3) == files(tmp_path, 4) == WEIGHTS


def test_a_better_checkpoint_replaces_the_best(tmp_path):
    rewards = [0.5, 0.3, 0.6, 0.2, 0.1]  # of ten steps each
    kept = []
    for step in range(10, 60, 10):
        save(tmp_path, step)
        log_scores(tmp_path, {at: rewards[(at - 1) // 10] for at in range(1, step)})
        prune(tmp_path, keep=2)
        kept.append(steps(tmp_path))
    assert kept[1:] == [[10, 20], [10, 20, 30], [30, 40], [30, 40, 50]]


def test_the_best_is_found_by_the_mean_of_ten_steps(tmp_path):
    save(tmp_path, 10), save(tmp_path, 20)
    steady, lucky = dict.fromkeys(range(1, 11), 0.5), dict.fromkeys(range(11, 20), 0.4)
    log_scores(tmp_path, steady | lucky | {20: 0.9})
    assert best(tmp_path) == 10
    log_scores(tmp_path, steady | lucky | {20: float("nan")})
    assert best(tmp_path) == 10
    log_scores(tmp_path, {})
    assert best(tmp_path) is None


def test_the_best_is_that_of_the_evaluations_where_there_are_some(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    rows = [
        {"step": 10, "data": {"critic/score/mean": 0.9}},
        # The evaluation of a version ends in a later step.
        {"step": 12, "data": {"critic/score/mean": 0.1, "val/version": 10, "val/reward/mean": 0.25}},
        {"step": 24, "data": {"critic/score/mean": 0.1, "val/version": 20, "val/reward/mean": 0.5}},
        {"step": 30, "data": {"critic/score/mean": 0.8}},
        {"step": 31, "data": {"critic/score/mean": 0.8, "val/version": 0, "val/reward/mean": 0.75}},
        {"step": 32, "data": {"critic/score/mean": 0.8, "val/version": 30, "val/documents": 0}},
        {"step": 40, "data": {"val/version": 30, "val/reward/mean": 0.95, "val/unfinished": 3}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert best(tmp_path) == 20


def test_folders_without_weights_are_removed(tmp_path):
    """verl removes the actor of an old checkpoint, and nothing else."""
    os.rename(save(tmp_path, 1) / "actor", tmp_path / "gone")
    save(tmp_path, 2), save(tmp_path, 3)
    prune(tmp_path, keep=2)
    assert folders(tmp_path) == {"global_step_2", "global_step_3"}


def test_a_checkpoint_that_is_being_written_is_no_checkpoint(tmp_path):
    assert steps(tmp_path) == []
    save(tmp_path, 2), save(tmp_path, 1)
    assert steps(tmp_path) == [1]
    prune(tmp_path, keep=2)
    assert files(tmp_path, 2) == WEIGHTS | REST


def test_an_interrupted_removal_is_finished_later(tmp_path, monkeypatch):
    for step in range(1, 4):
        save(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr("policy.train.kept_checkpoints.shutil.rmtree", _full_disk)
        with pytest.raises(OSError, match="disk"):
            prune(tmp_path, keep=2)
    assert steps(tmp_path) == [2, 3]
    prune(tmp_path, keep=2)
    assert folders(tmp_path) == {"global_step_2", "global_step_3"}


def test_the_trainer_prunes_after_the_ledger_has_the_checkpoint(tmp_path, monkeypatch):
    for step in range(1, 4):
        last = save(tmp_path, step)
    recorded = []
    trainer = SimpleNamespace(
        replay_buffer=SimpleNamespace(saved=lambda step: recorded.append((step, steps(tmp_path))))
    )
    recorder = CheckpointRecorder(OmegaConf.create({"trainer": {"keep_checkpoints": 2}}))
    recorder.on_save(trainer=trainer, global_step=3, checkpoint_dir=str(last), async_save=False)
    assert recorded == [(3, [1, 2, 3])]
    assert steps(tmp_path) == [2, 3]
    monkeypatch.setattr(checkpoints, "prune", _full_disk)
    recorder.on_save(trainer=trainer, global_step=3, checkpoint_dir=str(last), async_save=False)


def _full_disk(*_: object) -> None:
    raise OSError("disk")
