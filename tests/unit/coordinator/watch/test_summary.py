"""The figures of a run are counted from its ledger and metrics, and what is lost is named."""

import json
import time

import pytest

from coordinator.watch.progress import Progress
from coordinator.watch.report import samples, write_report
from coordinator.watch.summary import first_and_last, idle_ratio, lost_requests, read_metrics, summarize
from policy.document import Document, Task, TextPart
from policy.ledger.entries import Resumed, RolloutEnded, Scored, Started, TextGenerated, TrainerWaited
from policy.ledger.reader import close_open, read_ledger
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import DiffusionPayload, Failure, Outcome, Request, SearchPayload, Success


@pytest.fixture
def writer(tmp_path):
    writer = LedgerWriter(tmp_path, "test")
    yield writer
    writer.close()


def post(writer, owner="r", kind="search", timeout_s=60.0):
    payload = SearchPayload(query="q") if kind == "search" else DiffusionPayload(prompt="p")
    request = Request.make(kind, payload, timeout_s=timeout_s, owner=owner)
    writer.posted(request)
    return request


def succeed(writer, request):
    writer.request_ended(Outcome(request_id=request.request_id, kind=request.kind, result=Success()))


def fail(writer, request, cause):
    writer.request_ended(Outcome.failed(request, cause))


def rollout(writer, name, step, reward, state="trained"):
    task = Task(question="Write.", image_num=1)
    writer.started(name, task, step=step)
    document = Document(rollout_id=name, task=task, parts=(TextPart(text="words"),))
    writer.scored(document, Score(reward=reward, breakdown={"L": 0.5}), tokens=3)
    writer.rollout_ended(name, state, step=step)


def summary_of(run, **fields):
    defaults = {"name": "n", "seed": 1, "lost": 0, "worker_restarts": 0, "peak_rss_bytes": 1, "seconds": 1.0}
    return summarize(read_ledger(run), read_metrics(run / "metrics.jsonl"), **{**defaults, **fields})


def test_requests_are_counted_by_outcome_and_kind(tmp_path, writer):
    succeed(writer, post(writer))
    fail(writer, post(writer), Cause.NO_HIT)
    fail(writer, post(writer, kind="diffusion"), Cause.PROVIDER_DOWN)
    summary = summary_of(tmp_path)
    assert summary.requests_posted == 3
    assert summary.outcomes == {"no_hit": 1, "provider_down": 1, "success": 1}
    assert summary.by_tool["search"].model_dump() == {
        "posted": 2,
        "success": 1,
        "model": 1,
        "infrastructure": 0,
    }
    assert summary.by_tool["diffusion"].infrastructure == 1


def test_rewards_are_means_over_the_first_and_last_fifth_of_steps(tmp_path, writer):
    for step in range(1, 11):
        for n in range(2):
            rollout(writer, f"g{step}_{n}", step, step / 10 + (0.02 if n else 0))
    summary = summary_of(tmp_path)
    assert summary.reward_first == pytest.approx(0.16)
    assert summary.reward_last == pytest.approx(0.96)


def mask(writer, name, *failures, step=1):
    """A rollout that masks itself, as `policy.rollout.rollout` records it."""
    task = Task(question="Write.", image_num=1)
    writer.started(name, task, step=step)
    document = Document(rollout_id=name, task=task, parts=(TextPart(text="words"),))
    writer.scored(document, Score(reward=None, masked_by=failures), tokens=3)
    writer.rollout_ended(name, "masked", reason=", ".join(sorted({failure.cause for failure in failures})))


def test_masked_rollouts_are_counted_by_cause_and_step_and_not_averaged(tmp_path, writer):
    rollout(writer, "g_0", 3, 0.5)
    late, quota = Failure(cause=Cause.TIMEOUT), Failure(cause=Cause.QUOTA)
    mask(writer, "g_1", late, quota, late, step=1)  # its group is trained on in step 3
    mask(writer, "h_0", late, step=2)  # no sample of its group is valid
    writer.group_dropped("h", step=4)
    mask(writer, "i_0", quota, step=5)  # the run ended meanwhile
    summary = summary_of(tmp_path)
    assert (summary.masked, summary.dropped_with_group, summary.reward_first) == (3, 0, 0.5)
    assert summary.masked_by_cause == {"quota": 2, "timeout": 2}
    assert summary.masked_by_step == {3: 1, 4: 1, 5: 1}


def test_a_sample_dropped_with_its_group_is_not_masked_by_infrastructure(tmp_path, writer):
    mask(writer, "g_0", Failure(cause=Cause.TIMEOUT))
    rollout(writer, "g_1", 2, 0.9, state="masked")
    summary = summary_of(tmp_path)
    assert (summary.masked, summary.dropped_with_group) == (1, 1)
    assert (summary.masked_by_step, summary.dropped_by_step) == ({2: 1}, {2: 1})
    assert summary.masked_by_cause == {"timeout": 1}
    assert summary.rollouts == {"masked": 2}


def test_progress_counts_both_kinds_of_masked_samples_and_a_resume_undoes_the_later_ones(tmp_path, writer):
    mask(writer, "g_0", Failure(cause=Cause.TIMEOUT), Failure(cause=Cause.QUOTA))
    rollout(writer, "g_1", 2, 0.9, state="masked")
    progress = Progress(tmp_path)
    progress.update()
    assert progress.masked == {"quota": 1, "timeout": 1, "dropped_with_group": 1}
    assert progress.masked_rollouts == 1
    writer.append(Resumed(time=time.time(), step=1))
    progress.update()
    assert +progress.masked == {"quota": 1, "timeout": 1}
    assert summary_of(tmp_path).dropped_with_group == 0


def test_a_resume_forgets_groups_that_were_dropped_after_its_checkpoint(tmp_path, writer):
    for name, step in (("g", 1), ("h", 3)):
        mask(writer, f"{name}_0", Failure(cause=Cause.TIMEOUT), step=7)
        writer.group_dropped(name, step=step)
    writer.append(Resumed(time=time.time(), step=2))
    assert summary_of(tmp_path).masked_by_step == {1: 1, 7: 1}


def test_run_without_a_step_has_no_reward(tmp_path):
    (tmp_path / "ledger").mkdir()
    summary = summary_of(tmp_path)
    assert (summary.steps, summary.reward_first, summary.trainer_idle_ratio) == (0, None, None)


@pytest.mark.parametrize(("count", "width"), [(1, 1), (4, 1), (5, 1), (10, 2), (14, 2), (40, 8)])
def test_a_fifth_is_at_least_one_step(count, width):
    values = list(range(count))
    first, last = first_and_last(values)
    assert first == sum(values[:width]) / width
    assert last == sum(values[-width:]) / width


def test_request_past_its_deadline_without_outcome_is_lost(tmp_path, writer):
    late = post(writer, timeout_s=-1.0)
    post(writer, timeout_s=60.0)
    assert [record.request for record in lost_requests(read_ledger(tmp_path), time.time())] == [late]


def test_a_request_that_outlived_its_rollout_is_lost(tmp_path, writer):
    forgotten = post(writer, owner="g_0")
    rollout(writer, "g_0", 1, 0.5)
    assert [record.request for record in lost_requests(read_ledger(tmp_path), time.time())] == [forgotten]


def test_request_in_flight_at_the_end_is_cancelled_and_not_lost(tmp_path, writer):
    writer.started("g_0", Task(question="Write."))
    post(writer, owner="g_0")
    assert lost_requests(read_ledger(tmp_path), time.time()) == []
    close_open(tmp_path)
    summary = summary_of(tmp_path)
    assert summary.outcomes == {"cancelled": 1}
    assert summary.rollouts == {"cancelled": 1}


def test_idle_share_weighs_long_steps_more():
    rows = [
        {"timing_s/gen": 1.0, "timing_s/step": 2.0},
        {"timing_s/gen": 0.0, "timing_s/step": 8.0},
        {"x": 1},
    ]
    assert idle_ratio(rows) == pytest.approx(0.1)


def test_idle_seconds_are_summed_by_cause(tmp_path, writer):
    task = Task(question="Write.")
    writer.append(Started(time=100.0, rollout_id="g_0", task=task, step=1))
    writer.append(TextGenerated(time=104.0, rollout_id="g_0", segments=((100.0, 104.0),)))
    document = Document(rollout_id="g_0", task=task, parts=(TextPart(text="words"),))
    writer.append(Scored(time=106.0, document=document, score=Score(reward=0.5), tokens=3))
    writer.append(RolloutEnded(time=107.0, rollout_id="g_0", state="trained", step=1))
    writer.append(TrainerWaited(time=108.0, began=101.0, step=1))
    summary = summary_of(tmp_path)
    assert summary.trainer_idle_s == {"bookkeeping": 4.0, "generation": 3.0}
    assert summary.generator_idle_s == {"not admitted": 2.0, "bookkeeping": 2.0}
    assert summary.generator_idle_ratio == 0.5


def test_torn_last_line_of_metrics_is_skipped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps({"step": 1, "data": {"a": 2}}) + '\n{"step": 2, "da')
    assert read_metrics(file) == [{"a": 2, "step": 1}]


def test_progress_counts_each_line_once_and_waits_for_its_end(tmp_path, writer):
    progress = Progress(tmp_path)
    succeed(writer, post(writer))
    file = tmp_path / "metrics.jsonl"
    line = json.dumps({"step": 1, "data": {"critic/score/mean": 0.25}})
    file.write_text(line[:10])
    progress.update()
    assert (progress.posted, progress.steps) == (1, 0)
    file.write_text(line + "\n")
    fail(writer, post(writer), Cause.NO_HIT)
    progress.update()
    progress.update()
    assert (progress.posted, progress.steps, progress.rewards) == (2, 1, [0.25])
    assert progress.outcomes == {"success": 1, "model": 1}


def test_report_is_made_from_the_run_folder(tmp_path, writer):
    from coordinator.config.settings import check

    for step in range(1, 6):
        rollout(writer, f"g{step}_0", step, step / 10)
    config = check(
        {
            "name": "n",
            "train": {"model": "m"},
            "data": {"train": ["x"]},
            "blobs": {"url": str(tmp_path / "b")},
        },
        "t",
    )
    ledger = read_ledger(tmp_path)
    page = write_report(tmp_path, config, ledger, summary_of(tmp_path))
    assert "0.10 → 0.50" in page.read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["reward_last"] == pytest.approx(0.5)
    assert (tmp_path / "reward.png").stat().st_size > 1000
    assert [s.step for s in samples(ledger)] == [1, 2, 3, 4, 5]
