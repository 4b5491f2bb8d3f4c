"""The live view shows the progress of a run, on a terminal and off it."""

import errno
import io
import json
import os
import time

import pytest
from rich.console import Console

from coordinator.host.processes import MemoryWatch
from coordinator.scale.fleet import PoolState
from coordinator.watch.live import FIRST, LOADING, TRAINING, LiveView, sparkline, worker_counts
from coordinator.watch.progress import Progress
from policy.document import Document, Task
from policy.ledger.entries import Posted, Started, TextGenerated
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from policy.train.evaluation.result import Result
from workers.messages import Request


@pytest.fixture
def view(tmp_path):
    def make(terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        depths = {"search": 3, "code": 0}
        workers = {"code": PoolState(wanted=2, ready=1, restarts=3, low=1, high=4)}
        progress, memory = Progress(tmp_path, 10), MemoryWatch()
        where = "stuck: no worker serves this queue".format
        shown = LiveView(console, "run", 10, progress, memory, lambda: depths, lambda: workers, where)
        return shown, console

    return make


def step(run, number, reward, **more):
    data = {"critic/score/mean": reward, "timing_s/gen": 1.0, "timing_s/step": 4.0, **more}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": number, "data": data}) + "\n")


def evaluated(version, reward, lag=5):
    """The metrics of an evaluation."""
    result = Result(version, scored=[])
    metrics = result.metrics(version + lag, skipped=0)
    return metrics | {"val/reward/mean": reward, "val/reward/stderr": 0.02 / 1.96, "val/documents": 12}


@pytest.mark.parametrize("terminal", [True, False])
def test_step_reward_queue_workers_and_idle_share_are_shown(view, tmp_path, terminal):
    shown, console = view(terminal)
    step(tmp_path, 4, 0.625)
    with shown:
        shown.notify(TRAINING)
    text = console.file.getvalue()
    for expected in ("4/10", "0.625", "search 3", "25%", "code 1/2 (1–4)", "workers restarted"):
        assert expected in text
    assert "code 0" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_the_awaited_request_and_its_place(view, tmp_path, terminal):
    shown, console = view(terminal)
    writer, now = LedgerWriter(tmp_path, "test"), time.time()
    writer.append(Started(time=now - 30, rollout_id="g_0", task=Task(question="Write.")))
    asked = Request(request_id="g_0-0", kind="code", payload={}, deadline=now + 60, owner="g_0")
    writer.append(Posted(time=now - 20, request=asked))
    writer.append(TextGenerated(time=now - 20, rollout_id="g_0", segments=((now - 30, now - 20),)))
    writer.close()
    with shown:
        shown.notify(TRAINING)
    text = " ".join(console.file.getvalue().split())
    assert "waiting for" in text
    assert "pending code (20 of 30 s), g_0-0 is stuck: no worker serves this queue" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pause_names_the_provider(view, tmp_path, terminal):
    shown, console = view(terminal)
    writer = LedgerWriter(tmp_path, "trainer")
    writer.paused(["search (serpapi at serpapi.com) has been failing"], since=time.time())
    writer.close()
    with shown:
        shown.notify(TRAINING)
    text = " ".join(console.file.getvalue().split())
    assert "paused" in text
    assert "search (serpapi at serpapi.com) has been failing" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_minutes_show_their_stages(view, tmp_path, terminal):
    shown, console = view(terminal)
    with shown:
        shown.notify(TRAINING)
        assert LOADING in console.file.getvalue()
        assert FIRST not in console.file.getvalue()
        writer = LedgerWriter(tmp_path, "test")
        writer.started("g_0", Task(question="Write."))
        writer.close()
        shown.show(force=True)
        assert FIRST in console.file.getvalue()
        step(tmp_path, 1, 0.5)
        console.file.truncate(0)
        shown.show()
    assert LOADING not in console.file.getvalue()
    assert FIRST not in console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_time_left_is_estimated_from_the_last_steps(view, tmp_path, terminal):
    shown, console = view(terminal)
    for number in range(1, 5):
        step(tmp_path, number, 0.5)  # 4 s each, of ten steps
    with shown:
        shown.notify(TRAINING)
    assert "about 24 s" in console.file.getvalue()


def test_the_first_samples_are_counted(view, tmp_path):
    shown, console = view(False)
    writer = LedgerWriter(tmp_path, "test")
    task = Task(question="Write.")
    for name in ("g_0", "g_1"):
        writer.started(name, task)
    document = Document(rollout_id="g_0", task=task, parts=())
    writer.scored(document, Score(reward=0.5), tokens=3)
    writer.close()
    with shown:
        shown.notify(TRAINING)
    assert f"{FIRST}, 1 of 2 so far" in console.file.getvalue()


def test_masked_samples_are_shown_by_cause_and_apart_from_those_dropped_with_their_groups(view, tmp_path):
    shown, console = view(False)
    writer = LedgerWriter(tmp_path, "test")
    writer.rollout_ended("g_0", "masked", reason="quota, timeout")
    writer.rollout_ended("g_1", "masked", reason="timeout")
    writer.rollout_ended("g_2", "masked", reason="dropped with its group", step=1)
    writer.close()
    with shown:
        shown.notify(TRAINING)
    words = "masked 2 (2 timeout, 1 quota), 1 dropped with their groups"
    assert words in console.file.getvalue()


def test_off_a_terminal_a_step_prints_one_line(view, tmp_path):
    shown, console = view(False)
    shown.notify(TRAINING)
    step(tmp_path, 1, 0.5)
    shown.show()
    shown.show()
    step(tmp_path, 2, 0.5)
    shown.show()
    assert len(console.file.getvalue().splitlines()) == 3


def test_the_last_evaluation_is_shown_with_its_lag(view, tmp_path):
    shown, console = view(False)
    shown.notify(TRAINING)
    writer = LedgerWriter(tmp_path, "rollout")
    for name in ("eval-8-1c-0_0", "eval-8-1c-1_0", "eval-8-1c-2_0"):
        writer.started(name, Task(question="q"), step=8)
    document = Document(rollout_id="eval-8-1c-0_0", task=Task(question="q"), parts=())
    writer.scored(document, Score(reward=0.5), tokens=1)
    writer.close()
    step(tmp_path, 9, 0.5, **evaluated(4, 0.25))
    shown.show()
    assert "5 steps later; 2 documents in progress" in console.file.getvalue()
    assert "evaluation 0.250 ± 0.020 of version 4, 12 documents, 5 steps later" in console.file.getvalue()
    step(tmp_path, 10, 0.75)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # one that ended after the last step
        file.write(json.dumps({"step": 10, "data": evaluated(10, 0.5, lag=0)}) + "\n")
    shown.show(force=True)
    assert "step 10/10, reward 0.750, evaluation 0.500" in console.file.getvalue()


def test_before_training_only_the_stage_is_named(view):
    shown, console = view(False)
    shown.notify("starting Redis")
    assert console.file.getvalue() == "run: starting Redis\n"


def test_sparkline_spans_its_values():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([]) == ""


def test_pools_are_named_by_their_queues_and_bounds_shown_where_they_differ():
    states = {
        "code": PoolState(wanted=0, low=0, high=2),
        "diffusion-edit": PoolState(wanted=1, ready=1, low=1, high=1),
        "search-judge_text-judge_image": PoolState(wanted=2, ready=1, low=2, high=2),
    }
    assert worker_counts(states) == "code 0/0 (0–2) · diffusion-edit 1/1 · search… 1/2"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_full_output_does_not_end_the_run(view, terminal, error, monkeypatch):
    shown, console = view(terminal)

    def gone(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    with shown:
        shown.notify("begins")
        monkeypatch.setattr(console.file, "write", gone)
        monkeypatch.setattr(console.file, "flush", gone)
        for _ in range(100):
            shown.notify(TRAINING)
        assert len(console._buffer) < 100, "what cannot be shown piles up"
    assert "begins" in console.file.getvalue()


def test_a_torn_line_of_metrics_is_passed_over(view, tmp_path):
    shown, console = view(False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "da{"step"\n')
    step(tmp_path, 4, 0.5)
    with shown:
        shown.notify(TRAINING)
    assert "4/10" in console.file.getvalue()
