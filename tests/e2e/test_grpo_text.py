"""Three GRPO steps of the tiny Qwen3, with every queue real: what went in came out, once, and was learnt
from."""

from __future__ import annotations

import pytest

from policy.ledger import reward_curve
from workers.blobs import BlobStore
from workers.queues import QUEUES

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(demo):
    return demo("text")


def test_every_step_was_trained_on_full_groups(run):
    assert [step["training/global_step"] for step in run.metrics] == [1, 2, 3]
    states = run.ledger.states()
    assert states["trained"] + states["masked"] >= 3 * 8 * 8
    assert states["open"] == 0
    assert all(step["actor/grad_norm"] > 0 for step in run.metrics)


def test_the_ledger_is_healthy(run):
    assert run.ledger.violations == []
    assert run.ledger.pending == []


def test_the_reward_verl_learns_from_is_the_one_in_the_ledger(run):
    told = {int(step["training/global_step"]): step["critic/score/mean"] for step in run.metrics}
    assert reward_curve(run.ledger) == pytest.approx(told, abs=1e-4)


def test_every_tool_and_both_judges_answered(run):
    kinds = {record.request.kind for record in run.ledger.requests.values() if record.outcome.ok}
    assert kinds == set(QUEUES)


def test_every_image_of_a_document_is_in_the_blob_store(run):
    import json

    blobs = BlobStore(json.loads((run.folder / "config.json").read_text())["blobs"]["url"])
    trained = [record for record in run.ledger.rollouts.values() if record.state == "trained"]
    refs = {image.blob for record in trained for image in record.document.images if image.blob}
    assert refs
    for ref in refs:
        blobs.get(ref)


def test_weights_reach_the_engine_after_each_step(run):
    newest = {record.versions[1] for record in run.ledger.rollouts.values() if record.versions}
    assert newest >= {0, 1, 2}


def test_old_samples_stay_within_the_staleness_allowed(run):
    for step in run.metrics:
        assert step["training/off_policy/trajectory_staleness_worst/max"] <= 4


def test_the_run_leaves_its_checkpoint_page_and_curve(run):
    assert (run.folder / "checkpoints" / "global_step_3" / "actor").is_dir()
    assert (run.folder / "index.html").stat().st_size > 1000
    assert list(run.folder.glob("*.png"))


def test_the_summary_counts_what_the_ledger_holds(run):
    assert run.summary["steps"] == 3
    assert run.summary["lost"] == 0
    assert run.summary["requests_posted"] == len(run.ledger.requests)
    assert run.summary["peak_rss_bytes"] < 14 * 2**30
    assert 0 <= run.summary["trainer_idle_ratio"] <= 1


def test_the_taught_policy_writes_tags_that_parse_yet_leaves_something_to_learn(run):
    documents = [record.document for record in run.ledger.rollouts.values() if record.document]
    tags = sum(document.attempts for document in documents)
    invalid = sum(len(document.invalid) for document in documents)
    assert tags > len(documents) / 2
    assert invalid < tags / 5
    assert 0.3 < run.summary["reward_first"] < 0.75
