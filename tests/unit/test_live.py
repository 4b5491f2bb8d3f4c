"""The live view says what is going on, on a terminal and off it."""

import io
import json

import pytest
from rich.console import Console

from coordinator.fleet import PoolState
from coordinator.live import TRAINING, LiveView, sparkline, staffing
from coordinator.processes import MemoryWatch
from coordinator.progress import Progress


@pytest.fixture
def view(tmp_path):
    def make(terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        depths = {"search": 3, "code": 0}
        workers = {"code": PoolState(wanted=2, ready=1, restarts=3, low=1, high=4)}
        progress, memory = Progress(tmp_path), MemoryWatch()
        shown = LiveView(console, "run", 10, progress, memory, lambda: depths, lambda: workers)
        return shown, console

    return make


def step(run, number, reward):
    data = {"critic/score/mean": reward, "timing_s/gen": 1.0, "timing_s/step": 4.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": number, "data": data}) + "\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_step_reward_queue_workers_and_idle_share_are_shown(view, tmp_path, terminal):
    shown, console = view(terminal)
    step(tmp_path, 4, 0.625)
    with shown:
        shown.say(TRAINING)
    text = console.file.getvalue()
    for expected in ("4/10", "0.625", "search 3", "25%", "code 1/2 (1–4)", "workers restarted"):
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


def test_pools_are_named_by_their_queues_and_bounds_shown_where_they_differ():
    states = {
        "code": PoolState(wanted=0, low=0, high=2),
        "diffusion-edit": PoolState(wanted=1, ready=1, low=1, high=1),
        "search-judge_text-judge_image": PoolState(wanted=2, ready=1, low=2, high=2),
    }
    assert staffing(states) == "code 0/0 (0–2) · diffusion-edit 1/1 · search… 1/2"
