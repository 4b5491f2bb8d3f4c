"""`--resume`: what it refuses, and how it prepares the folder of a dead run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from coordinator.config.settings import check as config_of
from coordinator.state import claim
from coordinator.state.claim import CLAIM_S, RUN_KEY, Claim
from coordinator.state.resume import cancel, last_checkpoint, prepare, problems
from coordinator.watch.progress import Progress
from policy.document import Document, Task
from policy.ledger.entries import Resumed
from policy.ledger.reader import close_open, read_ledger
from policy.ledger.run_lock import exclusive, shared
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import Completion, CompletionSegment, CompletionStore
from policy.resume.plan import ResumePlan
from policy.resume.state import ResumeState
from policy.scoring import Score
from workers.broker.outcomes import commit
from workers.client import blocking as submit
from workers.errors import Cause, ConfigError
from workers.messages import Failure, Outcome, Request, SearchPayload, Success
from workers.redis_client import connect_redis

TASK = Task(question="q")


def configured(**train):
    document = {"name": "run", "train": {"model": "m", **train}, "data": {"train": ["a.parquet"]}}
    return config_of(document, "here")


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has started."""
    folder = tmp_path / "run"
    folder.mkdir()
    configured().save_yaml(folder)
    return folder


@pytest.fixture
def writer(run):
    writer = LedgerWriter(run, "rollout")
    yield writer
    writer.close()


def metrics(run, *steps: int) -> None:
    lines = [json.dumps({"step": step, "data": {"critic/score/mean": step / 10}}) for step in steps]
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def saved(run, writer, *steps: int) -> None:
    for step in steps:
        folder = run / "checkpoints" / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        (folder / "data.pt").touch()
        writer.checkpoint_saved(step=step)


def test_a_run_resumes_with_its_own_configuration(run):
    assert problems(configured(), run) == []


def test_a_missing_folder_is_named(tmp_path):
    [problem] = problems(configured(), tmp_path / "none")
    assert "none: there is no run to resume" in problem


def test_a_finished_run_is_not_resumed(run):
    writer = LedgerWriter(run, "coordinator")
    writer.finished()
    writer.close()
    [problem] = problems(configured(), run)
    assert "finished" in problem


def test_each_changed_field_is_named_with_its_old_value(run):
    found = problems(configured(lr=1e-3, n=4), run)
    assert [problem.split(":")[0] for problem in found] == ["train.lr", "train.min_valid", "train.n"]
    assert "is 0.001, and the run was started with 1e-06" in found[0]


@pytest.mark.parametrize(
    "train", [{"steps": 7}, {"save_every": 3}, {"keep_checkpoints": 4}, {"admission": "fixed"}]
)
def test_fields_of_place_and_speed_may_change(train, run):
    assert problems(configured(**train), run) == []


def test_workers_may_change(run):
    document = configured().model_dump(mode="json")
    document["workers"]["pools"] = [{"queues": ["search"], "concurrency": 3}]
    assert problems(config_of(document, "here"), run) == []


def test_the_last_existing_checkpoint_is_used(run, writer):
    assert last_checkpoint(read_ledger(run), run) == 0
    saved(run, writer, 2, 4)
    saved(run, writer, 5)
    (run / "checkpoints" / "global_step_5" / "data.pt").unlink()  # only its weights are left
    writer.checkpoint_saved(step=6)  # its files are gone
    assert last_checkpoint(read_ledger(run), run) == 4


def test_later_steps_are_undone_and_complete_texts_are_kept(run, writer):
    asked = Request.make("search", SearchPayload(query="cat"), timeout_s=60, owner="v_0", request_id="v_0-0")
    for name in ("t_0", "u_0", "v_0"):
        writer.started(name, TASK, step=2)
    writer.rollout_ended("t_0", "trained", step=2)
    saved(run, writer, 2)
    document = Document(rollout_id="u_0", task=TASK, parts=())
    CompletionStore(run).save(
        "u_0", Completion(time=time.time(), pieces=(CompletionSegment.of([1], [-1.0], (1, 1)),))
    )
    writer.scored(document, Score(reward=0.5), tokens=1, versions=(1, 1))
    writer.posted(asked)
    writer.rollout_ended("u_0", "trained", step=3)
    metrics(run, 1, 2, 3)
    beginning = prepare(configured(), run)
    assert (beginning.resumed, beginning.step, beginning.orphans) == (True, 2, (asked,))
    ledger = read_ledger(run)
    assert {name: record.state for name, record in ledger.rollouts.items()} == {
        "t_0": "trained", "u_0": None, "v_0": "cancelled",
    }  # fmt: skip
    assert ledger.requests["v_0-0"].outcome.result.cause is Cause.CANCELLED
    assert ledger.violations == []
    resumption = ResumePlan.load(run)
    assert (list(resumption.continued), resumption.name("v", 0)) == (["u_0"], "v_0.1")
    assert ResumeState.load(run, "u_0").score == Score(reward=0.5)
    for name in ("metrics.jsonl", "metrics.past.jsonl"):
        assert [json.loads(line)["step"] for line in (run / name).read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
@pytest.mark.parametrize(("version", "score"), [(2, None), (3, None), (2, 0.5), (3, 0.5)])
def test_sync_mode_keeps_only_texts_of_the_checkpoints_weights(mode, version, score, run, writer):
    saved(run, writer, 2)
    writer.started("u_0", TASK, step=version + 1)
    piece = CompletionSegment.of([1], [-1.0], (version, version))
    CompletionStore(run).save("u_0", Completion(time=time.time(), pieces=(piece,)))
    if score is not None:
        document = Document(rollout_id="u_0", task=TASK, parts=())
        writer.scored(document, Score(reward=score), tokens=1, versions=(version, version))
        writer.rollout_ended("u_0", "trained", step=version + 1)
    prepare(configured(mode=mode), run)
    goes_on = mode != "sync" or version == 2
    assert ("u_0" in ResumePlan.load(run).continued) == goes_on
    assert read_ledger(run).violations == []


@pytest.mark.parametrize("enable", [False, True])
def test_with_a_curriculum_texts_of_prompts_read_after_the_checkpoint_are_removed(enable, run, writer):
    writer.started("before_0", TASK, step=2)
    saved(run, writer, 2)
    writer.started("later_0", TASK, step=3)
    texts = CompletionStore(run)
    for name in ("before_0", "later_0"):
        piece = CompletionSegment.of([1], [-1.0], (2, 2))
        texts.save(name, Completion(time=time.time(), pieces=(piece,)))
    prepare(configured(epochs=2, curriculum={"enable": enable}), run)
    kept = {"before_0"} if enable else {"before_0", "later_0"}
    assert ResumePlan.load(run).continued == kept
    assert {name for name in ("before_0", "later_0") if texts.load(name)} == kept


def test_the_states_of_an_orderly_stop_are_undone_too(run, writer):
    asked = Request.make("search", SearchPayload(query="cat"), timeout_s=60, owner="u_0", request_id="u_0-0")
    writer.started("u_0", TASK, step=1)
    CompletionStore(run).save(
        "u_0", Completion(time=time.time(), pieces=(CompletionSegment.of([1], [-1.0], (0, 0)),))
    )
    writer.posted(asked)
    close_open(run)
    beginning = prepare(configured(), run)
    assert (beginning.step, beginning.orphans) == (0, ())
    ledger = read_ledger(run)
    assert (ledger.rollouts["u_0"].state, ledger.requests["u_0-0"].outcome) == (None, None)
    writer.request_ended(Outcome(request_id="u_0-0", kind="search", result=Success()))
    writer.rollout_ended("u_0", "trained", step=1)
    assert read_ledger(run).violations == []


def test_a_repeated_resume_changes_nothing(run, writer):
    for name in ("u_0", "v_0"):
        writer.started(name, TASK, step=1)
    CompletionStore(run).save(
        "u_0", Completion(time=time.time(), pieces=(CompletionSegment.of([1], [-1.0], (0, 0)),))
    )
    prepare(configured(), run)
    first = ResumePlan.load(run)
    prepare(configured(), run)
    second = ResumePlan.load(run)
    assert list(second.continued) == list(first.continued) == ["u_0"]
    assert second.name("v", 0) == "v_0.2"
    assert read_ledger(run).violations == []


def test_a_run_with_living_processes_is_not_resumed(run):
    holding = "import sys, time; from pathlib import Path; from policy.ledger.writer import LedgerWriter\n"
    holding += "one = LedgerWriter(Path(sys.argv[1]), 'rollout'); print('writing', flush=True)\n"
    holding += "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holding, str(run)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"writing\n"
        with pytest.raises(TimeoutError, match="still alive"), exclusive(run, 0.3):
            pass
        other.kill()
    with exclusive(run, 5.0), shared(run):
        pass


def test_a_line_that_a_dead_process_cut_off_is_ignored(run):
    first = LedgerWriter(run, "rollout")
    first.started("u_0", TASK)
    first.close()
    [path] = (run / "ledger").iterdir()
    with path.open("ab") as file:
        file.write(b'{"type": "clo')
    second = LedgerWriter(run, "rollout")  # of a process that has got the same number
    second.rollout_ended("u_0", "trained", step=1)
    second.close()
    assert read_ledger(run).states() == {"trained": 1}


def test_progress_counts_a_rollout_in_its_state_after_the_resume(run, writer):
    writer.started("u_0", TASK)
    writer.started("v_0", TASK)
    writer.rollout_ended("u_0", "trained", step=1)
    writer.checkpoint_saved(step=1)
    writer.rollout_ended("v_0", "trained", step=2)
    writer.append(Resumed(time=time.time(), step=1))
    writer.rollout_ended("v_0", "stale", step=2)
    progress = Progress(run)
    progress.update()
    assert +progress.states == {"trained": 1, "stale": 1}


@pytest.fixture
def server(queue_settings):
    with connect_redis(queue_settings.url) as client:
        yield client


def claimed_by(server, **changes) -> None:
    holder = {"name": "run", "host": socket.gethostname(), "pid": 2**22 + 1, "id": "x", **changes}
    server.set(RUN_KEY, json.dumps(holder), px=round(CLAIM_S * 1000))


def on(queue_settings):
    document = configured().model_dump(mode="json")
    document["queue"] = queue_settings.model_dump(mode="json")
    return config_of(document, "here")


def test_a_resumed_run_replaces_the_claim_of_its_dead_coordinator(server, queue_settings):
    claimed_by(server)
    resuming = Claim(on(queue_settings), resuming=True)
    resuming.acquire()
    assert claim.conflict(queue_settings)
    resuming.release()


@pytest.mark.parametrize("changes", [{"name": "other"}, {"host": "elsewhere"}, {"pid": 1}])
def test_a_resumed_run_replaces_no_other_claim(changes, server, queue_settings):
    claimed_by(server, **changes)
    with pytest.raises(ConfigError, match="uses this database"):
        Claim(on(queue_settings), resuming=True).acquire()
    assert claim.conflict(queue_settings, "run")


def test_orphaned_requests_are_cancelled_unless_they_ended(server, queue_settings):
    first, second = (
        Request.make("search", SearchPayload(query="cat"), timeout_s=60, request_id=name) for name in "ab"
    )
    commit(server, Outcome(request_id="a", kind="search", result=Success()), "", 60)
    cancel(queue_settings, (first, second))
    found = submit.outcomes(server, ["a", "b"])
    assert found["a"].ok
    assert isinstance(found["b"].result, Failure)
    assert found["b"].result.cause is Cause.CANCELLED


def test_a_ledger_from_the_future_is_refused(run, monkeypatch):
    ahead = time.time() + 60
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: ahead)
        writer = LedgerWriter(run, "trainer")
        writer.checkpoint_saved(step=1)
        writer.close()
    with pytest.raises(ConfigError, match="clock is wrong"):
        prepare(configured(), run)
    assert read_ledger(run).resumed == []


def test_both_lines_of_a_step_after_which_an_evaluation_ended_are_kept(run, writer):
    saved(run, writer, 1)
    metrics(run, 1)
    lines = ['{"step": 1, "data": {"val/version": 1}}', '{"step": 2, "data": {}}']
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    prepare(configured(), run)
    prepare(configured(), run)  # a resume that was killed
    kept = [json.loads(line) for line in (run / "metrics.past.jsonl").read_text().splitlines()]
    assert kept == [
        {"step": 1, "data": {"critic/score/mean": 0.1}}, {"step": 1, "data": {"val/version": 1}},
    ]  # fmt: skip


def test_a_metrics_line_that_was_cut_off_is_dropped(run, writer):
    saved(run, writer, 1)
    metrics(run, 1)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "da\n')
    prepare(configured(), run)
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1]
