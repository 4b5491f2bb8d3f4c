"""A real run is killed in the middle, all of it at once, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from rich.console import Console

from coordinator.build import Parts, build, cache_folder
from coordinator.demo import configure
from coordinator.redis_server import EmbeddedRedis
from policy.ledger import Ledger, read_ledger
from policy.ledger_writer import ENTRY, Scored
from policy.resumption import Resumption, place
from workers.outcomes import attempts_key

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
LLMI = str(Path(sys.executable).with_name("llmi"))
NAME, STEPS = "resumed", 3
LIMIT_S = 300.0


@dataclass(frozen=True)
class Resumed:
    """A run that was killed in its second step and resumed: its folder, what it had taken over, its ledger
    when it died and in the end.
    """

    folder: Path
    resumption: Resumption
    died: Ledger
    ledger: Ledger
    summary: dict


@pytest.fixture(scope="module")
def run(runs: Path) -> Resumed:
    config, folder = configured(runs), runs / NAME
    command = [LLMI, "train", str(config), "--runs", str(runs), "--json"]
    log = runs / f"{NAME}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as first,
    ):
        deadline = time.monotonic() + LIMIT_S
        while not in_step(folder, 2):
            assert first.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
    died = read_ledger(folder)
    ended = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    log = folder / "logs" / "trainer.log"
    assert ended.returncode == 0, f"{ended.stderr[-3000:]}\n{log.read_text(errors='replace')[-5000:]}"
    return Resumed(
        folder=folder,
        resumption=Resumption.load(folder),
        died=died,
        ledger=read_ledger(folder),
        summary=json.loads(ended.stdout.strip().splitlines()[-1]),
    )


def configured(runs: Path) -> Path:
    """The demo, of so many steps, with a checkpoint after each."""
    parts = Parts(cache_folder(), "text", seed=1)
    config = configure(parts, build(parts, Console(stderr=True)), NAME, STEPS)
    folder = runs / "configured"
    folder.mkdir()
    often = config.train.model_copy(update={"save_every": 1})
    config.model_copy(update={"train": often}).save_for_people(folder)
    return folder / "config.yaml"


def in_step(folder: Path, step: int) -> bool:
    """Whether a batch of this step was drawn, on top of a checkpoint."""
    ledger = read_ledger(folder)
    return bool(ledger.saved) and any(rollout.step == step for rollout in ledger.rollouts.values())


def test_it_goes_on_from_its_checkpoint_to_its_last_step(run):
    assert run.resumption.step in (1, 2)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert (run.folder / "checkpoints" / f"global_step_{STEPS}" / "actor").is_dir()


def test_every_rollout_has_one_state_and_no_sample_is_trained_on_twice(run):
    assert run.ledger.violations == run.ledger.open == run.ledger.pending == []
    trained = [rollout for rollout in run.ledger.rollouts.values() if rollout.state == "trained"]
    assert max(Counter(place(rollout.rollout_id) for rollout in trained).values()) == 1
    groups = {
        step: {rollout.uid for rollout in trained if rollout.step == step} for step in range(1, STEPS + 1)
    }
    assert [len(uids) for uids in groups.values()] == [8] * STEPS
    assert len(set().union(*groups.values())) == 8 * STEPS
    assert (run.summary["lost"], run.summary["violations"]) == (0, 0)


def test_finished_documents_keep_their_images_and_verdicts(run):
    scored = {name: rollout for name, rollout in run.died.rollouts.items() if rollout.score is not None}
    for name, before in scored.items():
        after = run.ledger.rollouts[name]
        assert (after.document, after.score) == (before.document, before.score)
    brought = [name for name, continued in run.resumption.continued.items() if continued.score is not None]
    assert brought
    assert all(run.ledger.rollouts[name].state == "trained" for name in brought if before_next(run, name))


def before_next(run: Resumed, name: str) -> bool:
    """Whether it was in the batch that the death undid."""
    return run.died.rollouts[name].step == run.resumption.step + 1


def test_no_job_that_had_its_outcome_ran_again(run):
    ended = [name for name, record in run.died.requests.items() if record.outcome is not None]
    assert ended
    with EmbeddedRedis(run.folder / "redis") as server, redis.Redis.from_url(server.url) as client:
        attempts = dict(zip(ended, client.mget([attempts_key(name) for name in ended]), strict=True))
    ran = {
        name: count for name, count in attempts.items() if count is not None
    }  # some had no need of a worker
    assert ran
    assert set(ran.values()) == {b"1"}


def test_no_document_is_scored_twice(run):
    files = sorted((run.folder / "ledger").glob("*.jsonl"))
    entries = [ENTRY.validate_json(line) for path in files for line in path.read_bytes().split(b"\n")[:-1]]
    scored = Counter(entry.document.rollout_id for entry in entries if isinstance(entry, Scored))
    assert set(scored.values()) == {1}


def test_what_is_kept_for_a_resume_is_gone_when_the_run_is_finished(run):
    assert not (run.folder / "texts").exists()
    again = [LLMI, "train", str(run.folder / "config.yaml"), "--runs", str(run.folder.parent), "--resume"]
    refused = subprocess.run(again, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert "finished" in refused.stderr
