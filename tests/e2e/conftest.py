"""A GRPO run of three steps, through the commands of users: the vision-language run without a break, the
text run killed in the middle and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from waiting import wait_until

from coordinator.watch.summary import read_metrics
from llmi.demo.build import Parts, build, cache_folder
from llmi.demo.run import configure
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger
from policy.resume.plan import ResumePlan

LLMI = str(Path(sys.executable).with_name("llmi"))
STEPS = 3
# Keys in the environment of every run; no file may contain one.
KEYS = {
    "SERP_API_KEY": "planted-serp-58c1",
    "OPENAI_API_KEY": "planted-openai-06d2",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-4e19",
    "HF_TOKEN": "planted-hub-77aa",
}
LIMIT_S = 840.0  # building the tiny models takes minutes when the cache is cold


@dataclass(frozen=True)
class Demo:
    """A finished run: folder, resolved configuration, output of `--json`, metrics by step, ledger, and all
    output.
    """

    kind: str
    folder: Path
    config: dict
    summary: dict
    metrics: list[dict]
    ledger: Ledger
    said: str


@pytest.fixture(scope="session")
def keys() -> tuple[str, ...]:
    """The keys in the environment of every run."""
    return tuple(KEYS.values())


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@dataclass(frozen=True)
class Resumed:
    """A run that was killed in its second step and resumed: its plan, its ledger when killed, and the
    finished run.
    """

    plan: ResumePlan
    killed: Ledger
    demo: Demo


@pytest.fixture(scope="session")
def resumed(runs: Path) -> Resumed:
    """The run of the tiny Qwen3, made once per session."""
    folder = runs / "text"
    command = [LLMI, "train", str(configured(runs)), "--dir", str(runs), "--json"]
    killed = killed_in_step(2, command, folder, runs / "text.log")
    demo = finished("text", runs, [*command, "--resume"])
    return Resumed(plan=ResumePlan.load(folder), killed=killed, demo=demo)


@pytest.fixture(scope="session")
def text(resumed: Resumed) -> Demo:
    return resumed.demo


@pytest.fixture(scope="session")
def vl(runs: Path) -> Demo:
    """The run of the tiny Qwen2.5-VL, made once per session."""
    return demo("vl", runs)


def demo(kind: str, runs: Path) -> Demo:
    command = [LLMI, "demo", "--steps", str(STEPS), "--json"]
    return finished(kind, runs, [*command, "--model", kind, "--name", kind, "--dir", str(runs)])


def finished(name: str, runs: Path, command: list[str]) -> Demo:
    """Run `command` to success, and return the run of this name."""
    env = {**os.environ, **KEYS, "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=False)
    folder = runs / name
    log = folder / "logs" / "trainer.log"
    received = f"{ended.stderr[-3000:]}\n{log.read_text(errors='replace')[-5000:] if log.exists() else ''}"
    assert ended.returncode == 0, received
    return Demo(
        kind=name,
        folder=folder,
        config=json.loads((folder / "config.json").read_text()),
        summary=json.loads(ended.stdout.strip().splitlines()[-1]),
        metrics=read_metrics(folder / "metrics.jsonl"),
        ledger=read_ledger(folder),
        said=ended.stdout + ended.stderr,
    )


def configured(runs: Path) -> Path:
    """The demo's configuration, with a checkpoint and an evaluation after each step, two trackers, and stale
    samples corrected as on a cluster.
    """
    parts = Parts(cache_folder(), "text", seed=1)
    config = configure(parts, build(parts, Console(stderr=True)), "text", STEPS)
    folder = runs / "configured"
    folder.mkdir()
    corrected = {"old_log_prob": "recompute", "rollout_is": "token"}
    changed = {"save_every": 1, "evaluate_every": 1, "evaluate_prompts": 6, **corrected}
    changed |= {"trackers": ("tensorboard", "wandb"), "pictures_every": 3}
    train = config.train.model_copy(update=changed)
    config.model_copy(update={"train": train}).save_yaml(folder)
    return folder / "config.yaml"


def killed_in_step(step: int, command: list[str], folder: Path, log: Path) -> Ledger:
    """Run `command` until a batch of `step` is sampled after a checkpoint, kill everything, and return the
    ledger.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **KEYS}, start_new_session=True
        ) as process,
    ):

        def reached() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            return drawn(folder, step)

        wait_until(reached, LIMIT_S, every_s=0.2)
        os.killpg(process.pid, signal.SIGKILL)
    return read_ledger(folder)


def drawn(folder: Path, step: int) -> bool:
    ledger = read_ledger(folder)
    return bool(ledger.checkpoints) and any(rollout.step == step for rollout in ledger.rollouts.values())
