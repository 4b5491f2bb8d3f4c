"""The page of a run: what it leaves out, and how it is written again."""

from __future__ import annotations

import json
import re

import pytest

from coordinator.config.settings import load
from coordinator.watch.report import REPORT, largest, rebuild
from coordinator.watch.summary import SUMMARY, summarize
from policy.document import Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.settings import METRICS
from policy.train.evaluation.result import Result, Scored
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


def test_the_page_shows_how_stale_the_samples_were(run):
    rows = [
        {"rollout_corr/rollout_is_eff_sample_size": 1.0, "rollout_corr/clipped_fraction": 0.0},
        {"rollout_corr/rollout_is_eff_sample_size": 0.875, "rollout_corr/clipped_fraction": 0.03125},
    ]
    lines = [json.dumps({"step": step, "data": data}) for step, data in enumerate(rows, 1)]
    (run / METRICS).write_text("".join(f"{line}\n" for line in lines))
    page, _ = rebuild(run)
    text = page.read_text(encoding="utf-8")
    assert re.search(r"effective sample size.*?<td>1</td><td>0.875</td>", text)
    assert re.search(r"ratio that was cut.*?<td>0</td><td>0.03125</td>", text)


def test_the_page_shows_evaluations_by_version_with_interval_and_lag(run):
    scored = [Scored("a", {"reward": 0.25}, 0, 1), Scored("b", {"reward": 0.75}, 0, 2)]
    found = Result(0, scored=scored, masked=1).metrics(3, skipped=1)
    last = Result(4, scored=[Scored("a", {"reward": 0.5}, 4, 4)]).metrics(4, skipped=1)
    late = Result(2, failed=2).metrics(4, skipped=1)
    rows = ((3, found), (4, {}), (4, late), (4, last))  # two of them ended after the last step
    lines = [json.dumps({"step": step, "data": data}) for step, data in rows]
    (run / METRICS).write_text("".join(f"{line}\n" for line in lines))
    page, summary = rebuild(run)
    text = page.read_text(encoding="utf-8")
    cells = ["0", "0.500 ± 0.490", "2", "1", "0–2", "3"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    assert "".join(f"<td>{cell}</td>" for cell in ["4", "0.500", "1", "0", "4–4", "0"]) in text
    assert "".join(f"<td>{cell}</td>" for cell in ["2", "no reward", "0", "2", "-", "2"]) in text
    assert "Evaluations (1 skipped)" in text
    assert summary.steps == 2, "the last step has three lines"


def test_without_such_metrics_the_page_has_no_table_of_them(run):
    page, _ = rebuild(run)
    assert "Stale samples" not in page.read_text(encoding="utf-8")
