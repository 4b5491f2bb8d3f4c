"""Rehearse a shipped configuration by the command of users, with a model and data of the project's own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from model_folders import PUBLISHED, write_model_folder

from coordinator.config.settings import load
from coordinator.watch.summary import read_metrics
from llmi.demo.prompts.corpus import write_dataset
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger

LLMI = str(Path(sys.executable).with_name("llmi"))
LIMIT_S = 900.0
ROWS = 64


@dataclass(frozen=True)
class Rehearsed:
    """A finished rehearsal: its folder, the object that --json prints, its metrics by step, its ledger."""

    folder: Path
    result: dict
    metrics: list[dict]
    ledger: Ledger


def rehearse(config: str, folder: Path, vocabulary: int | None = None) -> Rehearsed:
    """Rehearse the shipped `config` in `folder`. `vocabulary`: of the model; small by default."""
    train = load(config).train
    usual = "Qwen2.5-VL-7B" if train.modality == "vl" else "Qwen3-4B"
    kind = next((name for name in PUBLISHED if name in train.model), usual)
    model = write_model_folder(kind, folder / "model", vocabulary)
    files = write_dataset(folder / "data", seed=1, train=ROWS, test=ROWS)
    suffixes = ("", "_mm") if train.modality == "vl" else ("",)
    values = {
        "train.model": str(model),
        "data.train": [str(files[f"train{suffix}"]) for suffix in suffixes],
        "data.test": [str(files[f"test{suffix}"]) for suffix in suffixes],
        "blobs.url": "blobs",
    }
    changes = [f"{field}={json.dumps(value)}" for field, value in values.items()]
    command = [LLMI, "train", config, *changes, "--rehearse", "--name", "run", "--dir", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    run = folder / "run"
    log = run / "logs" / "trainer.log"
    ended = log.read_text(errors="replace")[-5000:] if log.exists() else ""
    assert done.returncode == 0, f"{done.stderr[-5000:]}\n{ended}"
    return Rehearsed(
        folder=run,
        result=json.loads(done.stdout.strip().splitlines()[-1]),
        metrics=read_metrics(run / "metrics.jsonl"),
        ledger=read_ledger(run),
    )
