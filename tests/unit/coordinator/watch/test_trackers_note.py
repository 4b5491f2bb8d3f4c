"""The page names a tracker that lacks rows."""

from __future__ import annotations

from coordinator.watch.trackers import notes


def test_a_tracker_that_lacks_rows_is_named() -> None:
    first = {"trackers/wandb/lost": 9, "trackers/mlflow/lost": 0}
    last = {"reward": 1.0, "trackers/wandb/lost": 12, "trackers/wandb/waiting": 3, "trackers/mlflow/lost": 0}
    assert notes([first, last, {"val/version": 3}]) == [
        "Tracker wandb lacks 12 rows; metrics.jsonl has all.",
        "3 rows waited for tracker wandb at the last step; logs/trainer.log says why.",
    ]


def test_a_tracker_that_never_connects_is_named() -> None:
    steps = [{"trackers/mlflow/lost": 0, "trackers/mlflow/waiting": count} for count in range(200)]
    assert notes(steps) == ["199 rows waited for tracker mlflow at the last step; logs/trainer.log says why."]


def test_a_tracker_that_is_a_row_behind_is_not_named() -> None:
    assert notes([{"trackers/mlflow/lost": 0, "trackers/mlflow/waiting": 1}]) == []


def test_nothing_is_said_without_trackers_or_steps() -> None:
    assert notes([]) == notes([{"reward": 1.0}]) == []
