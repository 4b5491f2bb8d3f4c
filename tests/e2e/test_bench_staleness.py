"""`llmi bench staleness` for real, with one arm and two short steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
LLMI = str(Path(sys.executable).with_name("llmi"))
SHORT = """
arms: [llmi_uncorrected]
seeds: [1]
batch: 2
n: 4
reward: 1.0
averaged: 1
max_steps: 2
services:
  mean_s: {diffusion: 0.1, edit: 0.1, search: 0.1, code: 0.1, judge_text: 0.1, judge_image: 0.1}
"""


def test_a_run_below_the_checks_is_measured_once(tmp_path):
    settings, folder = tmp_path / "short.yaml", tmp_path / "bench"
    settings.write_text(SHORT)
    command = [LLMI, "bench", "staleness", "--config", str(settings), "--dir", str(folder), "--json"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stderr
    arm = json.loads(first.stdout)["arms"]["llmi_uncorrected"]
    assert arm["reached"] == {"1": None}
    assert arm["clipped_fraction"] is None  # nothing was corrected
    rows = json.loads((folder / "seed-1" / "llmi_uncorrected" / "curve.json").read_text())
    assert [(row["step"], row["samples"]) for row in rows] == [(1, 8), (2, 8)]
    logs = folder / "seed-1" / "llmi_uncorrected" / "logs"
    written = {log: log.stat().st_mtime_ns for log in logs.iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert json.loads(again.stdout)["arms"] == json.loads(first.stdout)["arms"]
    assert written == {log: log.stat().st_mtime_ns for log in logs.iterdir()}
