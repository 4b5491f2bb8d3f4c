"""The live view says what is going on, on a terminal and off it."""

import io
import json

import pytest
from rich.console import Console

from coordinator.live import TRAINING, LiveView, sparkline
from coordinator.processes import MemoryWatch
from coordinator.progress import Progress


@pytest.fixture
def view(tmp_path):
    def make(terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        depths = {"search": 3, "code": 0}
        return LiveView(console, "run", 10, Progress(tmp_path), MemoryWatch(), lambda: depths), console

    return make


def step(run, number, reward):
    data = {"critic/score/mean": reward, "timing_s/gen": 1.0, "timing_s/step": 4.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": number, "data": data}) + "\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_step_reward_queue_and_idle_share_are_shown(view, tmp_path, terminal):
    shown, console = view(terminal)
    step(tmp_path, 4, 0.625)
    with shown:
        shown.say(TRAINING)
    text = console.file.getvalue()
    for expected in ("4/10", "0.625", "search 3", "25%"):
        assert expected in text
    assert "code 0" not in text


def test_off_a_terminal_a_step_is_one_line_and_silence_between(view, tmp_path):
    shown, console = view(False)
    shown.say(TRAINING)
    step(tmp_path, 1, 0.5)
    shown.show()
    shown.show()
    step(tmp_path, 2, 0.5)
    shown.show()
    assert len(console.file.getvalue().splitlines()) == 3


def test_before_training_only_the_stage_is_named(view):
    shown, console = view(False)
    shown.say("starting Redis")
    assert console.file.getvalue() == "run: starting Redis\n"


def test_sparkline_spans_its_values():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([]) == ""
