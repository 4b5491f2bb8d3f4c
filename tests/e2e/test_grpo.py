"""Three GRPO steps of both tiny policies with real queues: every request has one outcome, and is trained on
once.
"""

from __future__ import annotations

import itertools
from html import unescape
from pathlib import Path

import event_file
import pytest
from PIL import Image

from coordinator.config.settings import check
from coordinator.export.export import Export, chosen_step, write
from coordinator.watch import evaluations
from llmi.tools import SOURCES
from policy.ledger.reader import reward_curve
from policy.train.gradient.metrics import CLIPPED, EFFECTIVE
from workers.errors import Fault
from workers.messages import LOW, Failure
from workers.storage.blobs import BlobStore

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["text", "vl"])
def run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def trained(run):
    return [record for record in run.ledger.rollouts.values() if record.state == "trained"]


def test_every_step_was_trained_on_full_groups(run):
    assert [step["training/global_step"] for step in run.metrics] == [1, 2, 3]
    states = run.ledger.states()
    assert states["trained"] + states["masked"] >= 3 * 8 * 8
    assert states["open"] == 0
    assert all(step["actor/grad_norm"] > 0 for step in run.metrics)


def test_validity_is_reported_by_step_and_for_the_run(run, trained):
    assert all(step["validity/n_total"] == 8 * 8 for step in run.metrics)
    assert sum(step["validity/n_valid"] for step in run.metrics) == run.summary["n_valid"] == len(trained)
    assert run.summary["n_total"] == 3 * 8 * 8
    replaced = {why: sum(step[f"validity/groups_{why}"] for step in run.metrics)
                for why in ("stale", "failed", "too_few")}  # fmt: skip
    assert {why: count for why, count in replaced.items() if count} == run.summary["groups_replaced"]
    assert len(run.summary["dropped_by_latency"]) == 4


def test_the_ledger_is_healthy(run):
    assert run.ledger.violations == []
    assert run.ledger.pending == []


def test_the_reward_verl_learns_from_is_the_one_in_the_ledger(run):
    received = {int(step["training/global_step"]): step["critic/score/mean"] for step in run.metrics}
    assert reward_curve(run.ledger) == pytest.approx(received, abs=1e-4)


def test_every_tool_and_both_judges_answered(run):
    kinds = {record.request.kind for record in run.ledger.requests.values() if record.outcome.ok}
    assert kinds == {*SOURCES, "judge_text", "judge_image"}


def test_no_infrastructure_failure_was_trained_on(run, trained):
    ids = {record.rollout_id for record in trained}
    results = [r.outcome.result for r in run.ledger.requests.values() if r.request.owner in ids]
    assert len(results) > len(ids)
    infrastructure = [
        result for result in results if isinstance(result, Failure) and result.fault is not Fault.MODEL
    ]
    assert infrastructure == []


def test_every_image_of_a_document_is_in_the_blob_store(run, trained):
    blobs = BlobStore(run.config["blobs"]["url"])
    refs = {image.blob for record in trained for image in record.document.images if image.blob}
    refs |= {ref for record in trained for ref in record.task.inputs}
    assert refs
    for ref in refs:
        blobs.get(ref)


def test_keys_of_the_environment_are_in_no_file_of_the_run(run, keys):
    places = {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert any(name.endswith("trainer.log") for name in places)
    rays = Path("/tmp/ray/session_latest/logs")  # of the last run, which has ended
    places |= {str(path): path.read_bytes() for path in rays.rglob("*") if path.is_file()}
    assert any(name.startswith(str(rays)) for name in places)
    places["said"] = run.said.encode()
    for key in keys:
        assert [name for name, text in places.items() if key.encode() in text] == []


def test_weights_reach_the_engine_after_each_step(run):
    assert all(step["timing_s/update_weights"] > 0 for step in run.metrics)
    # The last batch is submitted in step 2, with the weights of step 1.
    newest = {record.versions[1] for record in run.ledger.rollouts.values() if record.versions}
    assert newest >= {0, 1}


def test_old_samples_stay_within_the_staleness_allowed(run):
    for step in run.metrics:
        assert step["training/off_policy/trajectory_staleness_worst/max"] <= 4


def test_every_step_reports_how_far_its_samples_are_from_the_policy(run):
    """The text run recomputes the old policy, the other takes it from the sampler."""
    for step in run.metrics:
        assert 0 < step[EFFECTIVE] <= 1 + 1e-6
        assert 0 <= step[CLIPPED] < 0.5
        assert step["rollout_corr/k3_kl"] > -1e-6
    assert "effective sample size" in (run.folder / "index.html").read_text(encoding="utf-8")


def test_every_step_reports_the_terms_of_its_rewards(run):
    for step in run.metrics:
        assert {f"terms/{name}" for name in ("r_num", "L", "M")} <= step.keys()
        assert all(0 <= value <= 1 for name, value in step.items() if name.startswith(("terms/", "caught/")))
        attempts = sum(step[f"tools/{name}/attempts"] for name in ("search", "diffusion", "code", "edit"))
        assert attempts >= step["document/images"] > 0
        assert step["document/text_chars"] > 0
    assert "image count (r_num)" in (run.folder / "index.html").read_text(encoding="utf-8")


def test_the_test_files_are_evaluated_by_version_of_the_weights(run):
    found = evaluations.read(run.folder / "metrics.jsonl")
    versions = [one.version for one in found]
    assert versions == sorted(set(versions))
    assert versions[-1] == 3
    for one in found:
        assert one.documents + one.masked == run.config["train"]["evaluate_prompts"]
        assert (one.failed, one.unfinished) == (0, 0)
        assert one.version <= one.oldest <= one.newest <= one.version + one.lag
        assert 0 < one.reward <= 1
    assert "Evaluations" in (run.folder / "index.html").read_text(encoding="utf-8")


def test_documents_of_an_evaluation_come_after_training_and_hold_up_no_step(run):
    evaluated = run.ledger.evaluated
    posted = [record.request for record in run.ledger.requests.values() if record.request.owner in evaluated]
    assert {request.priority for request in posted if request.kind != "edit"} == {LOW}
    first = [record for record in evaluated.values() if record.submitted_step == 0 and record.scored]
    assert run.ledger.waits[0].began < max(record.scored for record in first), "step 1 waited for none"
    assert not any("timing_s/testing" in step for step in run.metrics), "verl's own validation waits"
    assert all(step["validity/n_total"] == 8 * 8 for step in run.metrics)


def test_tensorboard_has_every_step(run):
    events = event_file.read(run.folder / "tensorboard")
    rewards = {event.step: event.value for event in events.Scalars("critic/score/mean")}
    expected = {int(step["training/global_step"]): step["critic/score/mean"] for step in run.metrics}
    assert rewards == pytest.approx(expected, abs=1e-4)
    assert all(step["trackers/tensorboard/lost"] == 0 for step in run.metrics)


def test_trackers_show_documents_of_a_resumed_run(text):
    events = event_file.read(text.folder / "tensorboard")
    assert events.Tags()["images"] == [f"documents/{number}" for number in range(4)]
    assert {event.step for event in events.Images("documents/0")} == {3}
    folders = list((text.folder / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # before and after the kill
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    assert len([path for one in folders for path in one.glob("files/media/images/documents_3_*.png")]) == 4


def test_every_step_reports_what_its_groups_show_about_their_prompts(run):
    assert all(0 < step["prompts/signal"] <= 1 for step in run.metrics)
    assert all("prompts/effective" not in step for step in run.metrics)
    untried = [step["prompts/untried"] for step in run.metrics]
    assert [before - after >= 8 for before, after in itertools.pairwise(untried)] == [True, True]
    first = run.metrics[0]
    assert first["prompts/difficulty"] == pytest.approx(1 - first["critic/score/mean"], abs=0.1)


def test_stale_samples_are_corrected_in_every_step(text):
    weights = [step["rollout_corr/rollout_is_mean"] for step in text.metrics]
    assert weights == pytest.approx([1.0] * 3, abs=0.2)  # near 1: the weights move little in a few steps
    stale = [step for step in text.metrics if step["training/off_policy/trajectory_staleness/mean"] > 0]
    assert stale
    assert all(0 < step["rollout_corr/rollout_is_min"] < 1 for step in stale)
    assert all(0 < step["rollout_corr/rollout_is_eff_sample_size"] < 1 for step in stale)


def test_the_run_leaves_its_checkpoint_and_the_configuration_it_ran_with(run):
    assert (run.folder / "checkpoints" / "global_step_3" / "actor").is_dir()
    config = check(run.config, "config.json")
    assert (config.name, config.train.steps, config.train.modality) == (run.kind, 3, run.kind)


def test_the_last_checkpoint_is_exported_as_a_model_that_transformers_loads(run, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    folder = tmp_path / "model"
    write(Export(run.folder, chosen_step(run.folder, "last"), merge_adapter=True), folder, print)
    kind = AutoModelForImageTextToText if run.kind == "vl" else AutoModelForCausalLM
    model, loaded = kind.from_pretrained(folder, output_loading_info=True)
    assert not loaded["missing_keys"]
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "Write a page."}], return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        trained = model(**prompt).logits
        started = kind.from_pretrained(run.config["train"]["model"], dtype=model.dtype)(**prompt).logits
    assert trained.isfinite().all()
    assert not torch.equal(trained, started)


def test_the_page_shows_documents_with_their_images_beside_the_curve(run, trained):
    page = (run.folder / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/") > 4
    assert any(record.task.question in unescape(page) for record in trained)
    with Image.open(run.folder / "reward.png") as curve:
        curve.load()
        assert curve.width > 300


def test_the_summary_counts_what_the_ledger_holds(run):
    summary, requests = run.summary, run.ledger.requests.values()
    assert summary["steps"] == 3
    assert (summary["lost"], summary["violations"]) == (0, 0)
    assert summary["masked"] == run.ledger.states()["masked"]
    assert summary["requests_posted"] == len(requests) == sum(summary["outcomes"].values())
    assert summary["outcomes"]["success"] == sum(record.outcome.ok for record in requests)
    for kind, counts in summary["by_tool"].items():
        assert counts["posted"] == sum(record.request.kind == kind for record in requests)
        assert counts["posted"] == counts["success"] + counts["model"] + counts["infrastructure"]
    assert summary["peak_rss_bytes"] < 14 * 2**30
    assert 0 <= summary["trainer_idle_ratio"] <= 1


def test_the_taught_policy_writes_tags_that_parse_yet_leaves_something_to_learn(run):
    documents = [record.document for record in run.ledger.rollouts.values() if record.document]
    tags = sum(document.attempts for document in documents)
    invalid = sum(len(document.invalid) for document in documents)
    assert tags > len(documents) / 2
    assert invalid < tags / 5
    assert 0.2 < run.summary["reward_first"] < 0.75
