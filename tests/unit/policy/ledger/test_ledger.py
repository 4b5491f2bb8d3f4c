"""The ledger: every entry survives, each rollout has one terminal state, and violations are reported."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until

from policy.document import Document, Task, TextPart
from policy.ledger import append_log
from policy.ledger import writer as ledger_writer
from policy.ledger.entries import ENTRY, LEDGER, Entry, Resumed
from policy.ledger.reader import close_open, read_ledger, reward_curve
from policy.ledger.writer import LedgerWriter
from policy.resume.plan import plan_resume
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, SearchPayload, Success

TASK = Task(question="Draw a cat", image_num=1, tools=("search",))


@pytest.fixture
def writer(tmp_path):
    writer = LedgerWriter(tmp_path, "rollout")
    yield writer
    writer.close()


def request(name: str = "r1") -> Request:
    return Request.make("search", SearchPayload(query="cat"), timeout_s=60, owner="u_0", request_id=name)


def outcome(of: Request) -> Outcome:
    return Outcome(request_id=of.request_id, kind=of.kind, result=Success())


def document(rollout_id: str) -> Document:
    return Document(rollout_id=rollout_id, task=TASK, parts=(TextPart(text="Ein Bild: \u2028 <image> é"),))


# Lines that runs have written, by the class that reads them.
OLD_LINES = {
    "TextGenerated": '{"type":"wrote","time":1.0,"rollout_id":"u_0","segments":[[0.5,1.0]]}',
    "TrainerWaited": '{"type":"waited","time":1.0,"began":0.5,"step":3}',
    "RolloutRaised": '{"type":"broken","time":1.0,"rollout_id":"u_0","reason":"ValueError"}',
    "RolloutEnded": '{"type":"closed","time":1.0,"rollout_id":"u_0","state":"trained","reason":"","step":3}',
    "CheckpointSaved": '{"type":"saved","time":1.0,"step":3,"held":["u_0"]}',
}


@pytest.mark.parametrize("name", OLD_LINES)
def test_lines_of_older_versions_are_read_and_written_alike(name):
    entry = ENTRY.validate_json(OLD_LINES[name])
    assert (type(entry).__name__, entry.model_dump_json()) == (name, OLD_LINES[name])


def test_requests_of_version_1_are_read():
    """Their runs can be looked at; queues refuse them."""
    line = (
        '{"type":"posted","time":1.0,"request":{"version":1,"request_id":"u_0-0","kind":"search",'
        '"payload":{"query":"a heron"},"deadline":700.0,"limit_s":60.0,"seed":3,"owner":"u_0"}}'
    )
    entry = ENTRY.validate_json(line)
    assert (entry.request.request_id, entry.request.version, entry.request.priority) == ("u_0-0", 2, 3)


def test_the_types_of_entries_in_files_stay_the_same():
    classes = get_args(get_args(Entry)[0])
    assert {one.model_fields["type"].default for one in classes} == {
        "started", "posted", "ended", "wrote", "waited", "paused", "pause_ended", "scored", "closed",
        "broken", "group_failed", "group_dropped", "saved", "resumed", "abandoned", "finished",
    }  # fmt: skip


def test_a_rollout_is_recorded_in_full(writer, tmp_path):
    asked = request()
    writer.started("u_0", TASK, step=3)
    writer.posted(asked)
    writer.request_ended(outcome(asked))
    writer.scored(document("u_0"), Score(reward=0.5, breakdown={"r_num": 1.0}), tokens=90, versions=(2, 3))
    writer.rollout_ended("u_0", "trained", step=4)
    ledger = read_ledger(tmp_path)
    rollout = ledger.rollouts["u_0"]
    assert (rollout.state, rollout.step, rollout.submitted_step, rollout.reward) == ("trained", 4, 3, 0.5)
    assert rollout.document == document("u_0")
    assert (rollout.tokens, rollout.versions, rollout.uid) == (90, (2, 3), "u")
    assert ledger.requests["r1"].outcome == outcome(asked)
    assert ledger.violations == []
    assert reward_curve(ledger) == {4: 0.5}


def test_times_of_segments_and_of_waiting_are_recorded(writer, tmp_path):
    writer.started("u_0", TASK)
    writer.text_generated("u_0", [(10.0, 11.5), (11.5, 12.0)])
    before = time.time()
    writer.trainer_waited(before - 3.0, step=7)
    ledger = read_ledger(tmp_path)
    rollout, [wait] = ledger.rollouts["u_0"], ledger.waits
    assert rollout.segments == ((10.0, 11.5), (11.5, 12.0))
    assert rollout.started <= rollout.generated <= before
    assert (wait.step, wait.began) == (7, before - 3.0)
    assert wait.time >= before


def test_a_second_terminal_state_is_a_violation_and_the_first_counts(writer, tmp_path):
    writer.started("u_0", TASK)
    writer.rollout_ended("u_0", "trained", step=1)
    writer.rollout_ended("u_0", "stale", step=2)
    ledger = read_ledger(tmp_path)
    assert ledger.rollouts["u_0"].state == "trained"
    assert ledger.violations == ["rollout u_0 is trained and stale"]


def test_a_second_outcome_and_one_without_a_request_are_violations(writer, tmp_path):
    asked = request()
    writer.posted(asked)
    writer.request_ended(outcome(asked))
    writer.request_ended(outcome(asked))
    writer.request_ended(outcome(request("unknown")))
    assert len(read_ledger(tmp_path).violations) == 2


def test_posting_again_is_still_one_request_with_the_later_deadline(writer, tmp_path):
    asked = request()
    again = asked.model_copy(update={"deadline": asked.deadline + 60})
    writer.posted(asked)
    first = read_ledger(tmp_path).requests["r1"].posted
    writer.posted(again)
    writer.request_ended(outcome(asked))
    ledger = read_ledger(tmp_path)
    [record] = ledger.requests.values()
    assert (record.request, record.posted) == (again, first)
    assert ledger.violations == []


def test_files_of_several_processes_are_one_ledger(tmp_path):
    rollout, trainer = LedgerWriter(tmp_path, "rollout"), LedgerWriter(tmp_path, "trainer")
    rollout.started("u_0", TASK)
    trainer.rollout_ended("u_0", "trained", step=1)
    rollout.close()
    trainer.close()
    assert len(list((tmp_path / "ledger").iterdir())) == 2
    assert read_ledger(tmp_path).states() == {"trained": 1}


def test_closing_a_run_cancels_what_is_open_once(writer, tmp_path):
    for name in ("v_0", "w_0", "x_0"):
        writer.started(name, TASK)
    writer.scored(document("v_0"), Score(reward=0.5), tokens=9)
    writer.rollout_ended("w_0", "masked")
    writer.rollout_raised("x_0", "EngineDied: the run ended")
    writer.posted(request())
    ledger = close_open(tmp_path)
    states = {name: rollout.state for name, rollout in ledger.rollouts.items()}
    assert states == {"v_0": "cancelled", "w_0": "masked", "x_0": "cancelled"}
    failure = ledger.requests["r1"].outcome.result
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.CANCELLED
    assert ledger.violations == ledger.open == ledger.pending == []
    again = close_open(tmp_path)
    assert again.violations == []


def test_a_failed_group_fails_its_open_rollouts(writer, tmp_path):
    for name in ("u_0", "u_1", "u_2", "v_0"):
        writer.started(name, TASK)
    writer.rollout_raised("u_0", "ValueError: boom")
    writer.rollout_ended("u_2", "masked")
    writer.group_failed("u", step=5)
    rollouts = read_ledger(tmp_path).rollouts
    assert {name: rollout.state for name, rollout in rollouts.items()} == {
        "u_0": "failed",
        "u_1": "failed",
        "u_2": "masked",
        "v_0": None,
    }
    assert (rollouts["u_0"].reason, rollouts["u_1"].reason) == (
        "ValueError: boom",
        "another rollout of its group failed",
    )
    assert rollouts["u_0"].step == 5


def test_documents_of_an_evaluation_are_apart_and_a_resume_leaves_them_as_they_are(writer, tmp_path):
    ended, open_, unread = "eval-2-1c-0_0", "eval-2-1c-1_0", "eval-2-1c-2_0"
    for name in (ended, open_, unread):
        writer.started(name, TASK, step=2)
    for name in (ended, unread):
        writer.scored(document(name), Score(reward=0.5), tokens=3, versions=(2, 3))
    writer.rollout_ended(ended, "evaluated", step=4)
    asked = request().model_copy(update={"owner": open_})
    writer.posted(asked)
    writer.append(Resumed(time=time.time() + 1, step=2))
    ledger = read_ledger(tmp_path)
    assert (ledger.rollouts, ledger.open, ledger.violations) == ({}, [], [])
    assert ledger.evaluated[ended].state == "evaluated", "of a version that the run has evaluated"
    assert ledger.owner(ledger.requests["r1"]) is ledger.evaluated[open_]
    plan = plan_resume(ledger, lambda _name: None, allowed=4)
    assert (plan.abandoned, plan.orphans) == ({}, (asked,))
    closed = close_open(tmp_path)
    assert {name: one.state for name, one in closed.evaluated.items()} == {
        ended: "evaluated", open_: "cancelled", unread: "cancelled",
    }  # fmt: skip
    assert closed.evaluated[unread].reason == "the run ended before it was read"


def test_an_incomplete_last_line_is_skipped_and_a_damaged_line_is_named(writer, tmp_path):
    writer.started("u_0", TASK)
    (path,) = (tmp_path / "ledger").iterdir()
    with path.open("ab") as file:
        file.write(b'{"type": "closed", "rollout_')
    assert list(read_ledger(tmp_path).rollouts) == ["u_0"]
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ValueError, match=rf"{path.name}:2"):
        read_ledger(tmp_path)


def test_every_line_written_survives_a_kill(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from policy.document import Task; from policy.ledger.writer import LedgerWriter\n"
        "writer = LedgerWriter(Path(sys.argv[1]), 'rollout')\n"
        "for i in range(200): writer.started(f'u_{i}', Task(question='x' * 10000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_ledger(tmp_path).rollouts) == 200


def test_lines_of_many_threads_do_not_mix(writer, tmp_path):
    def write(first: int) -> None:
        for i in range(50):
            writer.started(f"u_{first + i}", Task(question="y" * 5000))

    threads = [threading.Thread(target=write, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ledger(tmp_path).rollouts) == 200


def test_closing_twice_is_harmless(tmp_path):
    writer = LedgerWriter(tmp_path, "rollout")
    writer.started("u_0", TASK)
    file = writer._log._file
    writer.close()
    writer.close()
    with pytest.raises(OSError):
        os.fstat(file)
    with pytest.raises(OSError, match="closed"):
        writer.started("u_1", TASK)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_stays_on_one_line(tmp_path_factory, text):
    run = tmp_path_factory.mktemp("run")
    writer = LedgerWriter(run, "rollout")
    writer.started("u_0", Task(question=text))
    writer.close()
    assert read_ledger(run).rollouts["u_0"].task.question == text


def test_a_full_file_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(append_log, "FULL_BYTES", 2_000)
    writer = LedgerWriter(tmp_path, "rollout")
    for number in range(30):
        writer.started(f"u_{number}", TASK, step=number)
        writer.rollout_ended(f"u_{number}", "failed", reason="x" * (1_900 if number == 7 else 5))
    writer.close()
    files = sorted((tmp_path / LEDGER).glob("rollout-*.jsonl"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 2_200, "a long entry has a file of its own"
    ledger = read_ledger(tmp_path)
    assert ledger.violations == []
    assert {name: rollout.submitted_step for name, rollout in ledger.rollouts.items()} == {
        f"u_{number}": number for number in range(30)
    }
    assert ledger.states() == {"failed": 30}


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """For this process, by the kernel: a write takes what fits, and the next nothing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_full_for_a_while_loses_no_line(writer, tmp_path):
    """Regression: the next entry was written into the torn line, and the run could not be read any more."""
    writer.started("u_0", TASK)
    [file] = (tmp_path / LEDGER).glob("*.jsonl")
    with files_of_at_most(file.stat().st_size + 40):
        writer.started("u_1", TASK)
        writer.started("u_2", TASK)
        assert list(read_ledger(tmp_path).rollouts) == ["u_0"]
    writer.started("u_3", TASK)
    assert list(read_ledger(tmp_path).rollouts) == ["u_0", "u_1", "u_2", "u_3"]


def test_a_disk_that_stays_full_is_an_error(writer, tmp_path, monkeypatch):
    writer.started("u_0", TASK)
    monkeypatch.setattr(append_log, "FULL_BYTES", 1_000)
    [file] = (tmp_path / LEDGER).glob("*.jsonl")
    with files_of_at_most(file.stat().st_size), pytest.raises(OSError):
        writer.started("u_1", Task(question="?" * 1_000))


def test_a_failed_fsync_is_retried(tmp_path, monkeypatch):
    """Regression: the thread ended, and nothing was made durable any more."""
    asked = queue.Queue()

    def fsync(file: int) -> None:
        asked.put(file)
        if asked.qsize() == 1:
            raise OSError(errno.EIO, "try later")

    monkeypatch.setattr(append_log, "SYNC_S", 0.01)
    monkeypatch.setattr(append_log.os, "fsync", fsync)
    writer = LedgerWriter(tmp_path, "rollout")
    writer.started("u_0", TASK)
    wait_until(lambda: asked.qsize() >= 2)
    writer.close()


def test_a_clock_set_back_puts_no_outcome_before_its_request(writer, tmp_path, monkeypatch):
    clock = iter((2_000.0, 1_000.0))
    monkeypatch.setattr(ledger_writer, "time", SimpleNamespace(time=lambda: next(clock)))
    writer.posted(asked := request())
    writer.request_ended(outcome(asked))
    ledger = read_ledger(tmp_path)
    assert ledger.violations == ledger.pending == []
