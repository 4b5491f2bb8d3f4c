"""A real run that was killed in the middle, with all its processes, and resumed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis

from coordinator.host.redis_server import EmbeddedRedis
from coordinator.watch import evaluations
from policy.ledger.entries import ENTRY, Scored
from policy.ledger.records import Ledger
from policy.resume.slots import slot_of
from workers.broker.keys import STATS
from workers.queues import QUEUES

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
LLMI = str(Path(sys.executable).with_name("llmi"))
STEPS = 3


@pytest.fixture
def ledger(resumed) -> Ledger:
    """The ledger at the end."""
    return resumed.demo.ledger


def test_a_killed_run_resumes_from_its_checkpoint(resumed):
    assert resumed.plan.step in (1, 2)


def test_every_rollout_has_one_state_and_no_sample_is_trained_on_twice(ledger):
    assert ledger.violations == ledger.open == ledger.pending == []
    trained = [rollout for rollout in ledger.rollouts.values() if rollout.state == "trained"]
    assert max(Counter(slot_of(rollout.rollout_id) for rollout in trained).values()) == 1
    groups = {
        step: {rollout.uid for rollout in trained if rollout.step == step} for step in range(1, STEPS + 1)
    }
    assert [len(uids) for uids in groups.values()] == [8] * STEPS
    assert len(set().union(*groups.values())) == 8 * STEPS


def test_finished_documents_keep_their_images_and_verdicts(resumed, ledger):
    scored = {name: rollout for name, rollout in resumed.killed.rollouts.items() if rollout.score is not None}
    for name, before in scored.items():
        after = ledger.rollouts[name]
        assert (after.document, after.score) == (before.document, before.score)
    brought = [name for name in resumed.plan.continued if name in scored]
    assert brought
    undone = [name for name in brought if resumed.killed.rollouts[name].step > resumed.plan.step]
    assert {ledger.rollouts[name].state for name in undone} <= {"trained"}


def test_no_job_that_had_its_outcome_ran_again(resumed):
    ended = [name for name, record in resumed.killed.requests.items() if record.outcome is not None]
    assert ended
    again = resumed.demo.ledger.requests
    assert [again[name].outcome for name in ended] == [
        resumed.killed.requests[name].outcome for name in ended
    ]
    with EmbeddedRedis(resumed.demo.folder / "redis") as server, redis.Redis.from_url(server.url) as client:
        counted = [int(count) for name, count in client.hgetall(STATS).items() if name.endswith(b":n")]
        lists = [client.hgetall(f"llmi:queue:{queue}") for queue in QUEUES]
    left = [int(count) for one in lists for name, count in one.items() if name.startswith(b"popped:")]
    assert sum(left) <= sum(counted), "a request left its queue a second time after it had its outcome"


def test_no_document_is_scored_twice(resumed):
    files = sorted((resumed.demo.folder / "ledger").glob("*.jsonl"))
    entries = [ENTRY.validate_json(line) for path in files for line in path.read_bytes().split(b"\n")[:-1]]
    scored = Counter(entry.document.rollout_id for entry in entries if isinstance(entry, Scored))
    assert set(scored.values()) == {1}


def test_an_interrupted_evaluation_is_done_again_with_other_documents(resumed, ledger):
    """The last version is evaluated; of those before, the killed run's are in its own metrics or skipped."""
    interrupted = [record for record in resumed.killed.evaluated.values() if record.state is None]
    assert all(ledger.evaluated[record.rollout_id].state == "cancelled" for record in interrupted)
    assert {record.state for record in ledger.evaluated.values()} <= {"evaluated", "masked", "cancelled"}
    versions = [one.version for one in evaluations.read(resumed.demo.folder / "metrics.jsonl")]
    assert versions[-1] == STEPS
    assert any(version <= resumed.plan.step for version in versions)


def test_texts_for_a_resume_are_removed_when_the_run_is_finished(resumed):
    folder = resumed.demo.folder
    assert not (folder / "texts").exists()
    again = [LLMI, "train", str(folder / "config.yaml"), "--dir", str(folder.parent), "--resume"]
    refused = subprocess.run(again, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert "finished" in refused.stderr
