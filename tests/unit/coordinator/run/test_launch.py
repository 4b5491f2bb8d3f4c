"""A run that fails raises its own error, also when the ledger cannot be read."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from coordinator.config import settings as config
from coordinator.host.processes import MemoryWatch
from coordinator.host.signals import StopSignals
from coordinator.run import launch


def test_the_error_of_a_run_is_raised_though_its_ledger_cannot_be_read(tmp_path, monkeypatch, caplog):
    def ended(*_, **__):
        raise RuntimeError("the trainer ended")

    def unreadable(_):
        raise OSError("the ledger is damaged")

    monkeypatch.setattr(launch.preflight, "check", lambda *_: None)
    monkeypatch.setattr(launch, "Services", ended)
    monkeypatch.setattr(launch, "read_ledger", unreadable)
    run = config.check({"name": "x", "train": {"model": "m"}, "data": {"train": ["a"]}}, "here")
    console = Console(file=io.StringIO())
    with pytest.raises(RuntimeError, match="the trainer ended"):
        launch.launch(run, tmp_path, console, StopSignals(), MemoryWatch(), time.monotonic())
    assert "the ledger is damaged" in caplog.text
