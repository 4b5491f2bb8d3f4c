"""Progress of a command: one line that moves on a terminal, few lines elsewhere, and an estimate on both."""

from __future__ import annotations

import errno
import io
import os

import pytest
from rich.console import Console

from coordinator.console.stages import Stages, duration, seconds_left


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal, color_system=None)


def lines(shown: Console) -> list[str]:
    return shown.file.getvalue().splitlines()


def test_off_a_terminal_a_step_prints_a_line_at_its_start_and_at_intervals(clock: Clock) -> None:
    shown = console()
    with Stages(shown, every_s=15.0, clock=clock) as stages:
        for second in range(41):
            clock.now = 100.0 + second
            stages.step("teaching", second / 40)
        stages.step("loading")
    assert lines(shown) == [
        "teaching",
        "teaching: 38%, 15 s, about 25 s left",
        "teaching: 75%, 30 s, about 10 s left",
        "teaching: 100%, 40 s",
        "loading",
    ]


def test_off_a_terminal_nothing_is_written_while_nothing_changes(clock: Clock) -> None:
    shown = console()
    with Stages(shown, every_s=15.0, clock=clock) as stages:
        for _ in range(500):
            clock.now += 1.0
            stages.step("waiting", None, "3 of 7 workers ready")
        stages.step("waiting", None, "4 of 7 workers ready")
    assert lines(shown) == ["waiting: 3 of 7 workers ready", "waiting: 4 of 7 workers ready, 8 min 19 s"]


def test_a_terminal_shows_the_step_its_detail_and_the_time_left(clock: Clock) -> None:
    shown = console(terminal=True)
    with Stages(shown, clock=clock) as stages:
        stages.step("teaching [tiny]", 0.1, "step 1 of 10")
        clock.now += 10.0
        stages.step("teaching [tiny]", 0.5, "step 5 of 10")
    text = shown.file.getvalue()
    assert "teaching [tiny]: step 5 of 10" in text
    assert "about 12 s left" in text  # from the tenth that was done before


def test_earlier_progress_does_not_count_for_the_estimate(clock: Clock) -> None:
    shown = console()
    with Stages(shown, every_s=0.0, clock=clock) as stages:
        stages.step("judging", 0.8)
        clock.now += 10.0
        stages.step("judging", 0.9)
    assert lines(shown)[-1] == "judging: 90%, 10 s, about 10 s left"


def test_time_without_a_share_does_not_count_for_the_estimate(clock: Clock) -> None:
    shown = console()
    with Stages(shown, every_s=0.0, clock=clock) as stages:
        stages.step("training")
        clock.now += 100.0
        stages.step("training", 0.0)
        clock.now += 10.0
        stages.step("training", 0.5)
    assert lines(shown)[-1] == "training: 50%, 1 min 50 s, about 10 s left"


def test_stages_within_stages_take_turns(clock: Clock) -> None:
    shown = console(terminal=True)
    with Stages(shown, clock=clock) as outer:
        with Stages(shown, clock=clock) as inner:
            inner.step("building", 0.5)
        outer.step("evaluating", 0.5)
    assert shown.file.getvalue().index("building") < shown.file.getvalue().index("evaluating")


def test_a_notification_is_printed_on_and_off_a_terminal(clock: Clock) -> None:
    for terminal in (True, False):
        shown = console(terminal)
        with Stages(shown, clock=clock) as stages:
            stages.step("teaching")
            stages.notify("fault 3: [redis] cut")
        assert "fault 3: [redis] cut" in shown.file.getvalue()


@pytest.mark.parametrize(
    ("elapsed_s", "share", "left_s"),
    [(10.0, 0.5, 10.0), (30.0, 0.75, 10.0), (10.0, 1.0, 0.0), (10.0, None, None), (10.0, 0.0, None),
     (0.5, 0.5, None), (10.0, 1.5, None)],
)  # fmt: skip
def test_the_rest_is_estimated_from_the_pace_so_far(elapsed_s, share, left_s) -> None:
    assert seconds_left(elapsed_s, share) == (None if left_s is None else pytest.approx(left_s))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("error", [errno.EIO, errno.EPIPE, errno.ENOSPC])
def test_a_full_output_does_not_end_the_command(error: int, clock: Clock) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(error, os.strerror(error))

    shown = Console(file=Gone(), force_terminal=False)
    with Stages(shown, clock=clock) as stages:
        stages.step("teaching")
        stages.step("loading")
    assert shown.quiet
