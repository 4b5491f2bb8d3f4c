"""`llmi bench queue`: all contestants in interleaved rounds, then this program's queues at every backlog.

Invariant: a round has one trial of each contestant (or backlog), so that other load on the machine affects
all of them.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from coordinator.console.stages import Step
from coordinator.console.terminal import Notify
from coordinator.host.environment import environment
from llmi.load.queue import trial
from llmi.load.queue.backlog import Backlog, backlog
from llmi.load.queue.contestants import Contestant, Options, contestants
from llmi.load.queue.numbers import BacklogNumbers, Numbers, Rounds, Window
from llmi.load.queue.virtualenv import python_of
from llmi.load.testbed.system import ISOLATED
from workers.errors import InfrastructureFault

RESULT = "queue.json"


def run(options: Options, folder: Path, step: Step, notify: Notify) -> Numbers:
    """Measure, and write `queue.json` into `folder`.

    Raises `InfrastructureFault` when this program's queues, plain Celery or the two lists fail.
    """
    began = time.monotonic()
    (folder / trial.LOGS).mkdir()
    with environment(ISOLATED), tempfile.TemporaryDirectory(dir=folder, prefix="redis-") as data:
        pythons, skipped = _interpreters(options, step, notify)
        measured = _compare(options, pythons, skipped, folder, Path(data), step, notify)
        backlogs = _backlogs(options, folder, Path(data), step)
    numbers = Numbers(options, measured, skipped, backlogs, time.monotonic() - began)
    (folder / RESULT).write_text(json.dumps(numbers.document(), indent=1) + "\n", encoding="utf-8")
    return numbers


def _interpreters(
    options: Options, step: Step, notify: Notify
) -> tuple[dict[Contestant, Path], dict[str, str]]:
    """The interpreter of each contestant, and why some have none."""
    found: dict[Contestant, Path] = {}
    skipped: dict[str, str] = {}
    for number, contestant in enumerate(wanted := contestants(options)):
        step("preparing the environments of other task queues", number / len(wanted), contestant.name)
        try:
            found[contestant] = python_of(contestant)
        except InfrastructureFault as error:
            skipped[contestant.name] = error.detail
            notify(error.detail)
    return found, skipped


def _compare(
    options: Options, pythons: Mapping[Contestant, Path], skipped: dict[str, str], folder: Path, data: Path,
    step: Step, notify: Notify,
) -> dict[str, Rounds]:  # fmt: skip
    """The rounds of each contestant. One from PyPI that fails is left out from then on, and `skipped` has
    the reason.
    """
    trials: dict[str, list[trial.Trial]] = {contestant.name: [] for contestant in pythons}
    total = options.rounds * len(pythons)
    for number in range(options.rounds):
        for position, (contestant, python) in enumerate(pythons.items()):
            if contestant.name in skipped:
                continue
            share = (number * len(pythons) + position) / total
            step("comparing task queues", share, f"{contestant.name}, round {number + 1} of {options.rounds}")
            redis = data / f"{contestant.script}-{number}"
            try:
                trials[contestant.name].append(trial.run(contestant, python, options, folder, redis))
            except InfrastructureFault as error:
                if not contestant.packages:
                    raise
                skipped[contestant.name] = f"{contestant.name} is left out: {error.detail}"
                notify(skipped[contestant.name])
    return {name: Rounds(each) for name, each in trials.items() if name not in skipped}


def _backlogs(options: Options, folder: Path, data: Path, step: Step) -> list[BacklogNumbers]:
    with contextlib.ExitStack() as stack:
        filled = []
        for waiting in sorted(options.waiting):
            one = stack.enter_context(backlog(waiting, folder, data / str(waiting)))
            one.fill(lambda done, of=waiting: step(f"posting {of:,} requests", done / of, f"{done:,}"))  # type: ignore[misc]
            filled.append(one)
        windows: dict[Backlog, list[Window]] = {one: [] for one in filled}
        total = options.rounds * len(filled)
        for number in range(options.rounds):
            for position, one in enumerate(filled):
                words = f"{one.waiting:,} waiting, round {number + 1} of {options.rounds}"
                step("measuring with a backlog", (number * len(filled) + position) / total, words)
                windows[one].append(one.measure(options))
        return [BacklogNumbers(one.waiting, one.bytes / one.waiting, each) for one, each in windows.items()]
