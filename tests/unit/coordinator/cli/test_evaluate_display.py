"""How far an evaluation is, in a pipe: a line when something has changed, and not every second."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from coordinator.cli.commands import evaluate
from coordinator.console.stages import Stages
from evaluation.batch.progress import Status


def status(complete: int, judged: int, running: int = 0, lost: int = 0, incomplete: int = 0) -> Status:
    queued = 6 - complete - running - lost - incomplete
    return Status("mine", 6, complete, incomplete, queued, running, lost, judged, 0, 24, {})


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The output while these states are shown one after the other, ten seconds apart."""

    def watch(first: Status, *rest: Status) -> list[str]:
        now, coming = [0.0], iter(rest)
        monkeypatch.setattr(evaluate.time, "sleep", lambda _: now.__setitem__(0, now[0] + 10.0))

        class Evaluation:
            def poll(self) -> Status:
                return next(coming)

        console = Console(file=io.StringIO(), width=10_000)
        with Stages(console, clock=lambda: now[0]) as stages:
            assert not evaluate._watch(Evaluation(), first, stages).in_progress
        return console.file.getvalue().splitlines()

    return watch


def test_nothing_is_written_while_nothing_changes(watched) -> None:
    same = [status(0, 0, running=2)] * 50
    assert watched(*same, status(6, 24)) == [
        "mine: 0 of 6 items complete, 0 of 24 judged, 2 running, 4 queued",
        "mine: 6 of 6 items complete, 24 of 24 judged, 8 min 20 s",
    ]


def test_changes_are_gathered_and_the_rest_is_estimated(watched) -> None:
    seen = [status(0, 2 * n, running=2) for n in range(5)]
    assert watched(*seen, status(6, 24)) == [
        "mine: 0 of 6 items complete, 0 of 24 judged, 2 running, 4 queued",
        "mine: 0 of 6 items complete, 4 of 24 judged, 2 running, 4 queued, 20 s, about 1 min 40 s left",
        "mine: 0 of 6 items complete, 8 of 24 judged, 2 running, 4 queued, 40 s, about 1 min 20 s left",
        "mine: 6 of 6 items complete, 24 of 24 judged, 50 s",
    ]


def test_a_complete_evaluation_is_reported_at_once(watched) -> None:
    assert watched(status(6, 24)) == ["mine: 6 of 6 items complete, 24 of 24 judged"]


def test_items_that_ended_without_a_verdict_end_it_too(watched) -> None:
    lines = watched(status(5, 20, running=1), status(5, 20, incomplete=1))
    assert lines[-1] == "mine: 5 of 6 items complete, 20 of 24 judged, 1 incomplete, 10 s"
