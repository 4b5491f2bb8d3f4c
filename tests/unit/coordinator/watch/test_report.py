"""The page of a run: what it leaves out, and how it is written again."""

from __future__ import annotations

import json

import pytest

from coordinator.config.settings import load
from coordinator.watch.report import REPORT, largest, rebuild
from coordinator.watch.summary import SUMMARY, summarize
from policy.document import Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from workers.errors import ConfigError


def test_the_longest_causes_are_shown_and_the_others_summed():
    causes = {"a": 1.0, "b": 5.0, "c": 0.5, "d": 3.0, "e": 2.0, "f": 0.25}
    shown = largest(causes)
    assert list(shown) == ["b", "d", "e", "a", "everything else"]
    assert sum(shown.values()) == pytest.approx(sum(causes.values()))


def test_few_causes_are_shown_as_they_are():
    assert largest({"a": 1.0, "b": 2.0}) == {"b": 2.0, "a": 1.0}
    assert largest({}) == {}


@pytest.fixture
def run(tmp_path):
    load("qwen3_4b_grpo", {"name": "x"}).save(tmp_path)
    writer = LedgerWriter(tmp_path, "rollouts")
    writer.started("a_0-0", Task(question="Write about cats."), step=1)
    writer.close()
    return tmp_path


def test_the_page_of_a_running_run_is_written_and_the_run_does_not_end(run):
    page, summary = rebuild(run)
    assert page == run / REPORT
    assert "<html" in page.read_text(encoding="utf-8")
    assert (summary.name, summary.worker_restarts) == ("x", 0)
    assert not (run / SUMMARY).exists(), "that file says that a run has ended"


def test_the_page_of_a_run_that_ended_keeps_what_only_its_process_knew(run):
    known = {"lost": 1, "worker_restarts": 2, "peak_rss_bytes": 3, "seconds": 4.0}
    ended = summarize(read_ledger(run), [], name="x", seed=1, **known)
    (run / SUMMARY).write_text(ended.model_dump_json())
    _, summary = rebuild(run)
    assert summary.model_dump(include=known.keys()) == known
    assert json.loads((run / SUMMARY).read_text())["worker_restarts"] == 2


def test_a_folder_without_a_run_and_one_of_another_version_are_refused(run, tmp_path_factory):
    with pytest.raises(ConfigError, match="no run has started there"):
        rebuild(tmp_path_factory.mktemp("none"))
    (run / SUMMARY).write_text("{}")
    with pytest.raises(ConfigError, match="written by another version"):
        rebuild(run)
