"""How far the check of input images is, on a terminal and off it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coordinator import check_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed."""
    now = [0.0]
    monkeypatch.setattr(check_progress.time, "monotonic", lambda: now[0])
    return now


def test_off_a_terminal_a_line_comes_now_and_then_with_an_estimate(clock: list[float]) -> None:
    text = io.StringIO()
    with check_progress.shown(Console(file=text, width=40)) as report:
        for done in range(1, 101):
            clock[0] = done / 5
            report(done, 100)
    assert text.getvalue().splitlines() == [
        "checking the images: 25 of 100, about 15 s left",
        "checking the images: 50 of 100, about 10 s left",
        "checking the images: 75 of 100, about 5 s left",
    ]


def test_a_quick_check_says_nothing_off_a_terminal(clock: list[float]) -> None:
    text = io.StringIO()
    with check_progress.shown(Console(file=text)) as report:
        report(1, 2)
        report(2, 2)
    assert not text.getvalue()


def test_on_a_terminal_a_bar_counts() -> None:
    text = io.StringIO()
    with check_progress.shown(Console(file=text, force_terminal=True, width=80)) as report:
        report(3, 7)
    assert "3/7" in text.getvalue()
