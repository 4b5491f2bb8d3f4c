"""The main job itself, three steps of it, through the command that users call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from policy.ledger import Ledger, read_ledger

STEPS = 3
LIMIT_S = 840.0  # building the tiny models takes minutes when the cache is cold


@dataclass(frozen=True)
class Demo:
    """A finished run: its folder, its resolved configuration, what `--json` printed, its metrics by step, its
    ledger.
    """

    kind: str
    folder: Path
    config: dict
    summary: dict
    metrics: list[dict]
    ledger: Ledger


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def text(runs: Path) -> Demo:
    """The run of the tiny Qwen3, made once per session."""
    return demo("text", runs)


@pytest.fixture(scope="session")
def vl(runs: Path) -> Demo:
    """The run of the tiny Qwen2.5-VL, made once per session."""
    return demo("vl", runs)


def demo(kind: str, runs: Path) -> Demo:
    command = [str(Path(sys.executable).with_name("llmi")), "demo", "--steps", str(STEPS), "--json"]
    command += ["--model", kind, "--name", kind, "--runs", str(runs)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=False)
    log = runs / kind / "logs" / "trainer.log"
    told = f"{ended.stderr[-3000:]}\n{log.read_text(errors='replace')[-5000:] if log.exists() else ''}"
    assert ended.returncode == 0, told
    lines = (runs / kind / "metrics.jsonl").read_text().splitlines()
    return Demo(
        kind=kind,
        folder=runs / kind,
        config=json.loads((runs / kind / "config.json").read_text()),
        summary=json.loads(ended.stdout.strip().splitlines()[-1]),
        metrics=[json.loads(line)["data"] for line in lines],
        ledger=read_ledger(runs / kind),
    )
