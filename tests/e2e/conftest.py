"""The main job itself, three steps of it, through the command that users call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from policy.ledger import Ledger, read_ledger

STEPS = 3
LIMIT_S = 840.0  # building the tiny models takes minutes when the cache is cold


@dataclass(frozen=True)
class Demo:
    """A finished run: its folder, what `--json` printed, its metrics by step, its ledger."""

    folder: Path
    summary: dict
    metrics: list[dict]
    ledger: Ledger


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Demo]:
    """`demo("text")` or `demo("vl")`: run it once per session."""
    runs = tmp_path_factory.mktemp("runs")
    done: dict[str, Demo] = {}

    def run(kind: str) -> Demo:
        if kind not in done:
            command = [str(Path(sys.executable).with_name("llmi")), "demo", "--steps", str(STEPS), "--json"]
            command += ["--model", kind, "--name", kind, "--runs", str(runs)]
            env = {**os.environ, "PYTHONUNBUFFERED": "1"}
            ended = subprocess.run(
                command, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=False
            )
            log = runs / kind / "logs" / "trainer.log"
            told = (
                f"{ended.stderr[-3000:]}\n{log.read_text(errors='replace')[-5000:] if log.exists() else ''}"
            )
            assert ended.returncode == 0, told
            lines = (runs / kind / "metrics.jsonl").read_text().splitlines()
            done[kind] = Demo(
                folder=runs / kind,
                summary=json.loads(ended.stdout.strip().splitlines()[-1]),
                metrics=[json.loads(line)["data"] for line in lines],
                ledger=read_ledger(runs / kind),
            )
        return done[kind]

    return run
