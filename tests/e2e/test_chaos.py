"""A short trial of `llmi chaos`: every fault once, real rollouts, workers and Redis, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmi.load.chaos import trial
from llmi.load.chaos.faults import Kind

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


async def test_a_short_trial_with_every_fault_breaks_no_rule(tmp_path: Path) -> None:
    said: list[str] = []
    options = trial.Options(requests=80, workers=2, faults=len(Kind), seed=7)
    found = await trial.run(options, tmp_path, lambda _name, _share, _detail: None, said.append)
    broken = [text for rule in found.rules for text in rule.violations[:3]]
    ends = [
        f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in tmp_path.glob("logs/worker-*.log")
    ]
    assert not broken, "\n".join([*broken, *said, *ends])
    assert all(rule.checked for rule in found.rules)
    assert sum(found.faults.values()) >= len(Kind) - 2, said  # one or two may have had no target
    assert found.requests >= options.requests
    assert found.restarts >= 2
    assert found.trained > 0
    assert found.kept
