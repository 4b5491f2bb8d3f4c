"""The masked samples on a run's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config.settings import check
from coordinator.watch.report import points, write_report
from coordinator.watch.summary import Summary, summarize
from evaluation.pages.curve import Point, draw
from policy.document import Document, Task, TextPart
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure

LATE = Failure(cause=Cause.TIMEOUT, detail="no worker within 60 s")
DOWN = Failure(cause=Cause.PROVIDER_DOWN, detail="<b>HTTP 503</b>", provider="openai")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Step 1 trains on a group with a masked sample, step 2 drops a group; the run ended in step 3."""
    writer = LedgerWriter(tmp_path, "test")

    def sample(name: str, state: str, step: int, score: Score) -> None:
        task = Task(question=f"Write {name}.")
        writer.started(name, task, step=1 if step == 0 else step)
        parts = (TextPart(text=f"words of {name}"),)
        writer.scored(Document(rollout_id=name, task=task, parts=parts), score, tokens=3)
        writer.rollout_ended(name, state, step=step)

    sample("a_0", "trained", 1, Score(reward=0.5))
    sample("a_1", "masked", 0, Score(reward=None, masked_by=(LATE,)))
    sample("b_0", "masked", 2, Score(reward=0.7))
    sample("b_1", "masked", 0, Score(reward=None, masked_by=(DOWN,)))
    sample("b_2", "masked", 0, Score(reward=None, masked_by=(DOWN,)))
    writer.close()
    return read_ledger(tmp_path)


@pytest.fixture
def summary(ledger: Ledger) -> Summary:
    return summarize(
        ledger, [], name="mine", seed=1, lost=0, worker_restarts=0, peak_rss_bytes=1, seconds=1.0
    )


def page_of(run: Path, ledger: Ledger, summary: Summary) -> str:
    config = check(
        {"name": "n", "train": {"model": "m"}, "data": {"train": ["x"]}, "blobs": {"url": str(run / "b")}},
        "t",
    )
    return write_report(run, config, ledger, summary).read_text()


def test_the_curve_has_the_samples_that_masked_themselves(ledger: Ledger, summary: Summary) -> None:
    assert points(ledger, summary) == [Point(1, 0.5, 1, 0), Point(2, None, 2, 1)]


def test_the_page_shows_one_sample_of_each_cause_and_why(
    tmp_path: Path, ledger: Ledger, summary: Summary
) -> None:
    page = page_of(tmp_path, ledger, summary)
    shown = page[page.index("<h2>Masked samples</h2>") :]
    for text in ("words of a_1", "timeout", "no worker within 60 s", "words of b_1", "llmi why mine b_1"):
        assert text in shown
    assert "&lt;b&gt;HTTP 503&lt;/b&gt;" in shown
    assert "words of b_2" not in shown  # the same cause as b_1
    assert shown.index("words of b_1") < shown.index("words of a_1")  # the commonest first


def test_the_page_counts_by_cause_and_step_and_names_the_two_kinds(
    tmp_path: Path, ledger: Ledger, summary: Summary
) -> None:
    page = page_of(tmp_path, ledger, summary)
    rows = [
        "<td>provider down</td><td>openai</td><td>2</td><td>2</td><td>b_1</td>",
        "<td>timeout</td><td>rollout</td><td>1</td><td>1</td><td>a_1</td>",
        "<td>dropped with group</td><td></td><td>1</td><td>2</td><td>b_0</td>",
        "<td>2</td><td>2</td><td>1</td>",
        "<td>masked by infrastructure</td><td>3</td>",
        "<td>dropped with its group</td><td>1</td>",
    ]
    assert [row for row in rows if row not in page] == []
    assert "by infrastructure; 1 dropped with their groups; 1 of 2 valid" in page


def test_a_run_without_a_reward_has_bars_and_no_line(tmp_path: Path) -> None:
    found = draw([Point(1, None, 3, 0), Point(2, None, 0, 2)], tmp_path / "reward.png")
    assert found.stat().st_size > 1000


def test_a_run_without_masked_samples_shows_none(tmp_path: Path, summary: Summary) -> None:
    page = page_of(tmp_path, Ledger(), summary.model_copy(update={"masked": 0, "rollouts": {}}))
    assert "Masked samples" not in page
    assert "Masked, by" not in page
