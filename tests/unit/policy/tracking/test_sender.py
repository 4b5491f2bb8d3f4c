"""Rows reach a tracker in order; one that fails or hangs delays nothing, and what it lacks is counted."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from waiting import wait_until

from policy.tracking import sender
from policy.tracking.sender import Row, Sender


class Recorder:
    """A tracker that keeps the steps of its rows and refuses those in `refused`."""

    def __init__(self, refused=()):
        self.steps, self.ended, self.threads = [], [], set()
        self._refused = refused

    def send(self, row):
        self.threads.add(threading.current_thread())
        if row.step in self._refused:
            raise ConnectionError("gone")
        self.steps.append(row.step)

    def finish(self, failed):
        self.threads.add(threading.current_thread())
        self.ended.append(failed)


def rows(*steps):
    return [Row(step, {"reward": 0.5}) for step in steps]


def close(made, failed=False, within_s=10.0):
    made.end(failed)
    made.join(time.monotonic() + within_s)


@pytest.mark.parametrize("failed", [False, True])
def test_rows_arrive_in_order_and_the_tracker_learns_how_the_run_ended(failed):
    recorder = Recorder()
    made = Sender("fake", lambda: recorder)
    for row in rows(*range(50)):
        made.put(row)
    close(made, failed)
    assert recorder.steps == list(range(50))
    assert recorder.ended == [failed]
    assert len(recorder.threads) == 1
    assert made.metrics() == {"trackers/fake/lost": 0, "trackers/fake/waiting": 0}


def test_rows_that_a_tracker_refuses_are_counted_and_logged_once_for_each_outage(caplog):
    recorder = Recorder(refused={2, 3, 4, 7})
    with caplog.at_level(logging.WARNING):
        made = Sender("fake", lambda: recorder)
        for row in rows(*range(1, 9)):
            made.put(row)
        close(made)
    assert recorder.steps == [1, 5, 6, 8]
    assert made.metrics()["trackers/fake/lost"] == 4
    assert [record.getMessage() for record in caplog.records] == [
        "fake failed, and the run goes on: ConnectionError: gone",
        "fake failed, and the run goes on: ConnectionError: gone",
        "fake lacks 4 rows; metrics.jsonl has all",
    ]


def test_rows_wait_until_a_tracker_answers():
    recorder, attempts = Recorder(), []

    def connect():
        attempts.append(1)
        if len(attempts) < 4:
            raise ConnectionError("down")
        return recorder

    made = Sender("fake", connect, retry_s=0.01)
    for row in rows(1, 2):
        made.put(row)
    wait_until(lambda: recorder.steps == [1, 2])
    close(made)
    assert made.metrics()["trackers/fake/lost"] == 0


def test_a_tracker_that_never_answers_does_not_hold_the_end_of_a_run(caplog):
    def connect():
        raise ConnectionError("down")

    made = Sender("fake", connect)  # the next attempt would be in half a minute
    for row in rows(1, 2, 3):
        made.put(row)
    with caplog.at_level(logging.WARNING):
        close(made)
    assert "fake lacks 3 rows; metrics.jsonl has all" in caplog.messages


def test_a_tracker_that_hangs_delays_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sender, "MOST_ROWS", 2)
    entered, release = threading.Event(), threading.Event()

    class Hanging(Recorder):
        def send(self, row):
            entered.set()
            release.wait(60)

    made = Sender("fake", Hanging)
    made.put(Row(1, {}))
    assert entered.wait(10)
    for row in rows(2, 3, 4, 5):
        made.put(row)
    assert made.metrics() == {"trackers/fake/lost": 2, "trackers/fake/waiting": 3}
    with caplog.at_level(logging.WARNING):
        close(made, within_s=0.0)
    assert "fake did not finish in time; 5 rows are lost" in caplog.messages
    release.set()
