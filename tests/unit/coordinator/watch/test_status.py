"""`llmi status` shows the progress of a run, and tells slow requests from stuck ones."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from coordinator.cli.commands.runs import _show
from coordinator.watch import request_status
from coordinator.watch.progress import Progress
from coordinator.watch.request_status import describe
from coordinator.watch.status import read_status
from policy.document import Task
from policy.ledger.entries import Posted, Started, TextGenerated
from policy.ledger.writer import LedgerWriter
from policy.train.evaluation.result import Result
from workers.broker.request_status import RequestStatus
from workers.errors import ConfigError
from workers.messages import Request
from workers.settings import REDIS_ENV, QueueSettings

TASK = Task(question="Write about cats.")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose trainer has waited for 30 s, lately for a picture."""
    monkeypatch.delenv(REDIS_ENV, raising=False)
    document = {"name": "mine", "queue": {}, "train": {"steps": 8}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / "endpoints.json").write_text(json.dumps({"redis": "redis://127.0.0.1:1/0"}))
    writer, now = LedgerWriter(tmp_path, "test"), time.time()
    monkeypatch.setattr("coordinator.watch.status.time.time", lambda: now)
    writer.append(Started(time=now - 30, rollout_id="g_0", task=TASK))
    asked = Request(request_id="g_0-0", kind="diffusion", payload={}, deadline=now + 60, owner="g_0")
    writer.append(Posted(time=now - 20, request=asked))
    writer.append(
        TextGenerated(time=now - 12, rollout_id="g_0", segments=((now - 30, now - 20), (now - 20, now - 12)))
    )
    writer.close()
    return tmp_path


def test_a_running_run_shows_what_it_waits_for_and_the_prompt(run):
    now = read_status(run)
    assert (now.name, now.ended, now.step, now.steps, now.queues) == ("mine", False, 0, 8, None)
    assert now.waiting.cause == "pending diffusion"
    assert now.waiting.seconds == pytest.approx(20, abs=0.1)
    assert now.waiting.of_s == pytest.approx(30, abs=0.1)
    assert now.trainer_idle_s["generation"] == pytest.approx(10, abs=0.1)
    assert now.generator_idle_s["pending diffusion"] == pytest.approx(12, abs=0.1)
    one = now.longest_pending
    assert (one.request_id, one.tool, one.rollout, one.prompt) == ("g_0-0", "diffusion", "g_0", TASK.question)
    assert one.age_s == pytest.approx(20, abs=0.1)
    assert (one.state, one.stuck) == ("no outcome yet, and Redis does not answer", None)
    console = Console(file=io.StringIO(), width=200)
    _show(console, now, run)
    for expected in ("running", "0/8", "pending diffusion (20 of 30 s)", "Redis does not answer", "cats"):
        assert expected in console.file.getvalue()


def test_the_last_evaluation_is_part_of_the_status(run):
    metrics = Result(2, masked=3).metrics(4, skipped=0)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 4, "data": metrics}) + "\n")
    now = read_status(run)
    assert (now.evaluation.version, now.evaluation.lag, now.evaluation.masked) == (2, 2, 3)
    console = Console(file=io.StringIO(), width=200)
    _show(console, now, run)
    assert "no reward of version 2, 0 documents, 2 steps later" in console.file.getvalue()


def test_a_paused_run_names_the_provider_until_the_pause_ends(run):
    words = "judge_text (openai at host:8001) has been failing since 12:31:04: provider_down: HTTP 503"
    writer = LedgerWriter(run, "trainer")
    writer.paused([words], since=time.time() - 60)
    paused = read_status(run)
    assert paused.paused == [words]
    console = Console(file=io.StringIO(), width=200)
    _show(console, paused, run)
    assert f"paused          {words}" in console.file.getvalue()
    writer.pause_ended()
    writer.close()
    assert read_status(run).paused == []


def test_a_request_that_waits_for_its_provider_says_so():
    where = RequestStatus("waiting", before=3, workers=2)
    assert describe(where, 1.0, 15.0, "search (serpapi) is down") == (
        "queued; circuit open: search (serpapi) is down"
    )


def test_a_run_that_ended_waits_for_nothing(run):
    (run / "summary.json").write_text("{}")
    now = read_status(run)
    assert (now.ended, now.waiting, now.longest_pending) == (True, None, None)
    console = Console(file=io.StringIO(), width=200)
    _show(console, now, run)
    assert "ended" in console.file.getvalue()


def test_a_ledger_of_another_version_is_refused(run):
    (run / "ledger" / "old.jsonl").write_text('{"type": "began", "time": 1}\n')
    with pytest.raises(ConfigError, match="another version"):
        read_status(run)


def test_redis_is_read_at_intervals_however_often_the_view_is_drawn(run, monkeypatch):
    progress, asked = Progress(run), []
    progress.update()
    monkeypatch.setattr(
        request_status,
        "find_request",
        lambda url, *_: asked.append(url) or RequestStatus("running", for_s=9.0),
    )
    words = request_status.RequestStatusPoller(progress, lambda: ("redis://h", QueueSettings())).describe
    assert [words("g_0-0") for _ in range(3)] == ["running for 9 s"] * 3
    assert asked == ["redis://h"]
    assert words("unknown") == ""
    assert request_status.RequestStatusPoller(progress, lambda: None).describe("g_0-0") == ""


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    ("where", "median_s", "words"),
    [
        (None, None, "no outcome yet, and Redis does not answer"),
        (RequestStatus("waiting", before=3, workers=2), 1.0, "queued (3 ahead, 2 workers)"),
        (RequestStatus("waiting", workers=1), 1.0, "queued (next, 1 worker)"),
        (
            RequestStatus("running", for_s=12.0),
            3.0,
            "running for 12 s (slow: the median of its kind is 3.0 s)",
        ),
        (
            RequestStatus("running", for_s=4.0),
            3.0,
            "running for 4 s (the median of its kind is 3.0 s)",
        ),
        (RequestStatus("running", for_s=4.0), None, "running for 4 s"),
        (RequestStatus("silent", for_s=9.0), 3.0, "stuck: lease not renewed for 9 s (it expires after 15 s)"),
        (RequestStatus("unserved"), None, "stuck: no worker serves this queue"),
        (
            RequestStatus("unserved", loading=2),
            None,
            "queued: 2 workers are loading",
        ),
        (RequestStatus("unknown"), None, "stuck: Redis has lost it; its client reposts it within seconds"),
        (RequestStatus("quarantined"), None, "quarantined: it ended its worker too often"),
        (RequestStatus("done"), None, "done: its outcome is being delivered"),
    ],
)
def test_slow_and_stuck_are_described_differently(where, median_s, words):
    assert describe(where, median_s, 15.0) == words


def test_an_evaluation_is_not_a_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(ConfigError, match="of an evaluation see `llmi evaluate status`"):
        read_status(tmp_path)
