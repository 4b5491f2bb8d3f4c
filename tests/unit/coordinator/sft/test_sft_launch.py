"""The end of `llmi sft`: what is in the folder before the run is marked as finished."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from cpu_train import CPU_TRAIN
from rich.console import Console

from coordinator.config.settings import check
from coordinator.host.signals import StopSignals
from coordinator.sft import launch as launching
from coordinator.sft.launch import launch
from coordinator.sft.prepare import Prepared
from coordinator.state.resume import finished
from policy.ledger.run_lock import exclusive
from policy.sft.examples import Example, Selection
from policy.sft.plan import Plan

EXAMPLE = Example(({"role": "user", "content": "Write."},), "Words.")


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A training of one step, which only writes its metrics, by `launch`."""
    document = {"name": "warm", "train": CPU_TRAIN, "data": {"train": ["a.parquet"]}}
    config, run = check(document, "here"), tmp_path / "warm"
    prepared = Prepared(config, run, Selection((EXAMPLE,), Counter()), 3, 5, Plan(1, 1, 1), [])

    def trained(*_: object) -> None:
        (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": {"train/loss": 0.5}}) + "\n")

    monkeypatch.setattr(launching, "prepare", lambda *_, **__: prepared)
    monkeypatch.setattr(launching, "_train", trained)
    return lambda **more: launch(config, tmp_path, Console(quiet=True), StopSignals(), **more)


def test_a_run_that_ends_before_its_picture_can_be_resumed(training, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(launching, "draw", killed)
        with pytest.raises(KeyboardInterrupt):
            training()
    assert not finished(tmp_path / "warm")
    assert training(resumed=True).loss_last == 0.5
    assert finished(tmp_path / "warm")
    assert (tmp_path / "warm" / "summary.json").is_file()


def test_a_run_is_complete_and_locked_until_it_is_finished(training, tmp_path, monkeypatch):
    finish = launching._finish

    def checked(run) -> None:
        assert (run / "summary.json").is_file()
        assert (run / "loss.png").is_file()
        with pytest.raises(TimeoutError), exclusive(run, 0.0):
            pass
        finish(run)

    monkeypatch.setattr(launching, "_finish", checked)
    training()
    assert finished(tmp_path / "warm")
