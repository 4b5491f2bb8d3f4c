"""The queue benchmark: medians and ratios, its targets, and the processes that it talks to."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from llmi.load.queue import bench, trial
from llmi.load.queue.child import line_child
from llmi.load.queue.contestants import CELERY, OTHERS, OURS, RAW, Contestant, Options, contestants
from llmi.load.queue.numbers import (
    BacklogNumbers,
    CommandTime,
    Numbers,
    Rounds,
    Window,
    command_ratios,
)
from llmi.load.queue.picture import draw
from llmi.load.queue.trial import SCRIPTS, Load, Trial, finish
from workers.errors import Cause, InfrastructureFault

OFTEN = 1000


def window(per_s: float = 500.0, p99: float = 8.0, **us_per_call: float) -> Window:
    return Window(per_s, 4.0, p99, {name: CommandTime(OFTEN, us) for name, us in us_per_call.items()})


def backlog(waiting: int, *windows: Window) -> BacklogNumbers:
    return BacklogNumbers(waiting, 1500.0, windows)


FAST, SLOW = Trial(900.0, 2.0, 5.0), Trial(500.0, 3.0, 9.0)
USUAL = window(xadd=5.0)


def numbers(ours: Trial = FAST, small: Window = USUAL, large: Window = USUAL) -> Numbers:
    return Numbers(
        options=Options(),
        contestants={OURS.name: Rounds([ours]), CELERY.name: Rounds([SLOW])},
        skipped={},
        backlogs=[backlog(1000, small), backlog(1_000_000, large)],
        wall_s=1.0,
    )


def missed(found: Numbers) -> list[str]:
    return [target.name for target in found.targets if not target.met]


def test_a_median_ignores_one_disturbed_round() -> None:
    rounds = Rounds([Trial(100.0, 9.0, 90.0), Trial(500.0, 2.0, 5.0), Trial(520.0, 2.2, 6.0)])
    assert rounds.medians() == {"per_s": 500.0, "p50": 2.2, "p99": 6.0}


def test_all_targets_are_met_at_their_limits() -> None:
    found = numbers(
        ours=Trial(750.0, 3.0, 5.0),
        small=window(per_s=500.0, p99=10.0, xadd=5.0),
        large=window(per_s=450.0, p99=11.0, xadd=6.0),
    )
    assert (len(found.targets), missed(found)) == (5, [])


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (numbers(ours=Trial(740.0, 2.0, 5.0)), "requests per second, against plain Celery"),
        (numbers(ours=Trial(900.0, 3.1, 5.0)), "post to outcome, p50, against plain Celery"),
        (
            numbers(large=window(per_s=440.0, xadd=5.0)),
            "requests per second, 1,000,000 waiting against 1,000",
        ),
        (
            numbers(large=window(p99=8.9, xadd=5.0)),
            "post to outcome beside, p99, 1,000,000 waiting against 1,000",
        ),
        (numbers(large=window(xadd=6.2)), "time per call of XADD, 1,000,000 waiting against 1,000"),
    ],
)
def test_each_target_is_missed_alone(found: Numbers, name: str) -> None:
    assert missed(found) == [name]


def test_one_backlog_has_nothing_to_compare() -> None:
    found = replace(numbers(), backlogs=[backlog(1000, window())])
    assert len(found.targets) == 2


def test_the_slowest_command_is_named() -> None:
    found = numbers(small=window(get=2.0, evalsha=10.0), large=window(get=2.2, evalsha=30.0))
    slowest = found.targets[-1]
    assert slowest.name.startswith("time per call of EVALSHA")
    assert slowest.value == pytest.approx(3.0)


def test_a_command_has_the_median_of_its_windows() -> None:
    calls = [{"get": CommandTime(300, us)} for us in (2.0, 90.0, 2.2)] + [{"ping": CommandTime(1, 3.0)}]
    one = backlog(1000, *(Window(1.0, 1.0, 1.0, each) for each in calls))
    assert one.commands() == {"get": CommandTime(900, 2.2), "ping": CommandTime(1, 3.0)}


@pytest.mark.parametrize(
    ("few", "many", "ratio"),
    [
        (CommandTime(OFTEN, 5.0), CommandTime(OFTEN, 10.0), 2.0),
        (CommandTime(3, 5.0), CommandTime(3, 10.0), None),  # a few short calls: chance
        (CommandTime(3, 5.0), CommandTime(3, 1000.0), 200.0),  # a few calls that take long with the backlog
        (CommandTime(OFTEN, 0.3), CommandTime(OFTEN, 1.2), 1.0),  # Redis counts in whole microseconds
        (CommandTime(OFTEN, 0.0), CommandTime(OFTEN, 5.0), 5.0),
    ],
)
def test_a_command_counts_if_it_is_frequent_or_slow(
    few: CommandTime, many: CommandTime, ratio: float | None
) -> None:
    small = backlog(1000, Window(1.0, 1.0, 1.0, {"scan": few}))
    large = backlog(100_000, Window(1.0, 1.0, 1.0, {"scan": many}))
    assert command_ratios(small, large) == ({} if ratio is None else {"scan": ratio})


def test_the_document_has_every_round_and_every_command() -> None:
    document = numbers(small=window(xadd=5.0)).document()
    assert document["contestants"]["llmi"]["rounds"] == [{"per_s": 900.0, "p50": 2.0, "p99": 5.0}]
    assert document["backlogs"][0]["commands"] == {"xadd": {"calls": OFTEN, "us_per_call": 5.0}}
    assert document["backlogs"][1]["waiting"] == 1_000_000
    assert len(document["targets"]) == 5


def test_the_picture_is_drawn_with_and_without_backlogs(tmp_path: Path) -> None:
    sizes = []
    for backlogs in (numbers().backlogs, []):
        file = tmp_path / f"{len(backlogs)}.png"
        draw(replace(numbers(), backlogs=backlogs), file)
        sizes.append(int.from_bytes(file.read_bytes()[20:24]))  # height in the PNG header
    assert sizes[0] > sizes[1] > 100


def test_all_contestants_have_the_same_number_of_jobs_at_once() -> None:
    options = Options(slots=3)
    assert contestants(options) == (OURS, CELERY, *OTHERS, RAW)
    assert contestants(replace(options, others=False)) == (OURS, CELERY, RAW)
    dramatiq, taskiq, arq = (one.workers for one in OTHERS)
    assert dramatiq("prefork", 3)[0][-4:] == ["--processes", "3", "--threads", "1"]
    assert dramatiq("threads", 3)[0][-4:] == ["--processes", "1", "--threads", "3"]
    assert taskiq("prefork", 3)[0][3:8] == ["taskiq_queue:broker", "--workers", "3", "--max-async-tasks", "1"]
    assert (len(arq("prefork", 3)), len(arq("threads", 3))) == (3, 1)
    assert RAW.workers("threads", 3) == [["-m", "redis_lists", "3"]]
    assert CELERY.workers("threads", 3)[0][5:9] == ["-P", "threads", "-c", "3"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contestants in the order of their rounds. arq fails in its second, taskiq does not install."""
    names: list[str] = []

    def run(contestant: Contestant, *_: object) -> Trial:
        names.append(contestant.name)
        if contestant.name == "arq" and names.count("arq") == 2:
            raise InfrastructureFault(Cause.INTERNAL, "no answer")
        return FAST

    def python_of(contestant: Contestant) -> Path:
        if contestant.name == "taskiq":
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "taskiq is left out")
        return Path(sys.executable)

    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(bench, "python_of", python_of)
    return names


def test_rounds_are_interleaved_and_a_contestant_that_fails_is_left_out(
    measured: list[str], tmp_path: Path
) -> None:
    said: list[str] = []
    found = bench.run(Options(rounds=3, waiting=()), tmp_path, lambda *_: None, said.append)
    first = ["llmi", "Celery", "dramatiq", "arq", "two Redis lists"]
    assert measured == [*first, *first, *(name for name in first if name != "arq")]
    assert found.skipped == {"taskiq": "taskiq is left out", "arq": "arq is left out: no answer"}
    assert said == list(found.skipped.values())
    assert {name: len(one.rounds) for name, one in found.contestants.items()} == dict.fromkeys(
        ["llmi", "Celery", "dramatiq", "two Redis lists"], 3
    )
    assert json.loads((tmp_path / bench.RESULT).read_text())["skipped"] == found.skipped


def run_harness(folder: Path, source: str, load: Load) -> tuple[dict, list[str]]:
    """The numbers of a contestant with this source, and the lines that it has written to `calls`."""
    (folder / "contestant.py").write_text(source)
    command = [sys.executable, "-P", str(SCRIPTS / "harness.py"), "contestant", json.dumps(asdict(load))]
    env = {**os.environ, "PYTHONPATH": str(folder), "CALLS": str(folder / "calls")}
    with line_child(command, folder / "log", env) as child:
        assert child.read(60.0) == "ready"
        found = finish(child, load)
    return found, (folder / "calls").read_text().split()


BLOCKING = """
import os
calls = open(os.environ["CALLS"], "a", buffering=1)
def post():
    calls.write("post\\n")
def wait(handle):
    calls.write("wait\\n")
"""
ASYNC = """
import asyncio, os
calls = open(os.environ["CALLS"], "a", buffering=1)
async def start(): pass
async def request():
    calls.write("post\\n")
    await asyncio.sleep(0)
    calls.write("wait\\n")
async def close(): pass
"""


@pytest.mark.parametrize("source", [BLOCKING, ASYNC])
def test_as_many_requests_are_in_flight_as_wanted(tmp_path: Path, source: str) -> None:
    load = Load(warm=2, requests=10, in_flight=4, singles=3)
    found, calls = run_harness(tmp_path, source, load)
    assert (calls.count("post"), calls.count("wait")) == (15, 15)
    flying = [calls[: n + 1].count("post") - calls[: n + 1].count("wait") for n in range(len(calls))]
    assert max(flying) == 4
    assert calls[-6:] == ["post", "wait"] * 3
    assert len(found["latencies_s"]) == 3
    assert Trial.of(found).per_s > 0


def test_a_child_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no Redis')"]
    with line_child(command, tmp_path / "log", os.environ) as child:
        with pytest.raises(InfrastructureFault, match="no Redis"):
            child.read(60.0)


def test_a_child_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with line_child(command, tmp_path / "log", os.environ) as child:
        with pytest.raises(InfrastructureFault, match=r"longer than 0\.1 s"):
            child.read(0.1)
