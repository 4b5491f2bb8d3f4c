"""`llmi bench client`, small: every number is measured, and no process is left."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmi.load.client import bench
from llmi.load.simulated import model as simulated_model
from workers.settings import REDIS_ENV

ROLLOUTS = 50


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fast model and fast workers. Restores the garbage collector of this process."""
    monkeypatch.setattr(simulated_model, "PACE_S", (0.05, 0.2))
    monkeypatch.setattr(bench, "SERVICE_S", (0.02, 0.1))
    monkeypatch.setattr(bench, "RAMP_S", 0.5)
    monkeypatch.setattr(bench, "SETTLE_S", 1.5)
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("quick")
async def test_every_number_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(REDIS_ENV, "redis://127.0.0.1:1/0")  # not the one to measure with
    said: list[str] = []
    numbers = await bench.measure(ROLLOUTS, 3.0, tmp_path, said.append)
    assert "measuring for 3 s" in said
    assert numbers.posting.n > ROLLOUTS
    assert 0 < numbers.raw_idle.p50 <= numbers.posting.p50 < 1000
    assert numbers.raw_loaded.n > 0
    assert numbers.loop_lag.n > 20
    for spread in (numbers.posting, numbers.loop_lag, numbers.raw_idle, numbers.raw_loaded):
        assert spread.p50 <= spread.p90 <= spread.p99 <= spread.largest
    assert numbers.requests_per_s > numbers.rollouts_per_s > 1
    assert 100 < numbers.message_bytes < 20_000
    assert numbers.tokens_per_rollout > simulated_model.PROMPT_TOKENS
    assert 1 < numbers.rollout_traced_kb < 500
    assert 0 < numbers.processor_share <= 2
    assert (numbers.left_open, numbers.failed) == (0, 0)
    assert [words for words in commands_below() if str(tmp_path) in words] == []


def commands_below() -> list[str]:
    """The command lines of all descendants of this process, except those that are ending."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            found.append(" ".join(process.cmdline()))
    return found
