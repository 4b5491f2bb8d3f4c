"""The progress of a run, read from its files while it goes on.

Invariants:
- Each line of a file is read once, however often `update` is called.
- A line without its end is read later.
- No process of the run is touched.
"""

from __future__ import annotations

import heapq
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordinator.watch.evaluations import Evaluated, evaluation_of
from coordinator.watch.idle.report import IdleReport
from coordinator.watch.idle.spans import Span
from coordinator.watch.idle.tracker import IdleTracker
from coordinator.watch.masking_answers import MaskingAnswers
from coordinator.watch.summary import STEP, idle_ratio
from policy.ledger import entries
from policy.ledger.entries import ENTRY, LEDGER, Entry, State
from policy.ledger.masked import DROPPED, causes_of
from policy.ledger.records import of_evaluation, rollout_of
from policy.settings import METRICS
from workers.messages import Failure

logger = logging.getLogger(__name__)
REWARD = "critic/score/mean"
LAST_STEPS = 10  # steps from which the time left is estimated
IDLE_EVERY_S = 2.0  # some ms of work for a thousand rollouts in flight


class Progress:
    """Counts of a run, kept up to date by `update`.

    `total`: the number of steps of the run, None when the data decides. Attributes:

    - `rewards`: mean of each step, in order. `last_step`: verl's metrics of the last one.
    - `evaluation`: the last that ended. `evaluating`: documents of the next one without a score.
    - `outcomes`: requests by `success`, `model` or `infrastructure`.
    - `masked`: samples by cause; `DROPPED` for those that were dropped with their group.
    - `idle`: idle seconds by cause so far.
    - `waiting`: what the trainer has waited for since its last step, in order; empty while it trains.
    - `paused`: the pause that is in effect, and its providers.
    - `masking_answers`: answers of providers that masked samples, since this process started to read.
    - `started`, `scored`: rollouts since the run was last started or resumed.
    """

    def __init__(self, run: Path, total: int | None = None):
        self._run = run
        self._total = total
        self._offsets: dict[Path, int] = {}
        self.rewards: list[float] = []
        self.steps = 0
        self.last_step: dict[str, Any] = {}
        self.evaluation: Evaluated | None = None
        self.evaluating = 0
        self.started = self.scored = 0
        self.posted = 0
        self.outcomes: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()
        self.masked_rollouts = 0  # by infrastructure; one may have several causes
        self.idle_tracker = IdleTracker()
        self.idle = IdleReport({}, {}, 0.0)
        self.waiting: list[Span] = []
        self.paused: entries.Paused | None = None
        self.masking_answers = MaskingAnswers()
        self._idle_at = 0.0
        self._timing: list[dict[str, Any]] = []
        # State and step of each rollout that no checkpoint holds yet: a resumed run starts before them.
        self._uncommitted: dict[str, tuple[State, int]] = {}

    @property
    def idle_ratio(self) -> float | None:
        """Share of the steps' time that the trainer waited; None before the first step."""
        return idle_ratio(self._timing)

    @property
    def left_s(self) -> float | None:
        """Estimated seconds of the steps that are left, from the last ones; None when unknown."""
        last = [row[STEP] for row in self._timing[-LAST_STEPS:] if isinstance(row.get(STEP), int | float)]
        if not last or self._total is None:
            return None
        return max(0, self._total - self.steps) * sum(last) / len(last)

    def update(self) -> None:
        """Read what was written since the last call."""
        now = time.time()
        for line in self._new_lines(self._run / METRICS):
            try:
                entry = json.loads(line)
            except ValueError:  # torn by a disk that was full: the trainer's own file
                logger.warning("%s: a line cannot be parsed and is skipped", METRICS)
                continue
            if ended := evaluation_of(entry["data"]):
                self.evaluation = ended
                if REWARD not in entry["data"]:  # it ended after the last step
                    continue
            self.steps, self.last_step = entry["step"], entry["data"]
            self._timing.append(entry["data"])
            self.idle_tracker.add_step(entry["step"], entry["data"])
            if isinstance(entry["data"].get(REWARD), int | float):
                self.rewards.append(entry["data"][REWARD])
        self.idle_tracker.add(self._new_entries(), now)
        if now - self._idle_at > IDLE_EVERY_S:
            self._idle_at = now
            self._update_idle(now)

    def conclude(self) -> None:
        """Read the rest of a run that has ended; nothing is waited for any more."""
        self.update()
        self.idle_tracker.add([])
        self.waiting, self.paused = [], None
        self.idle = self.idle_tracker.report(self.idle_tracker.idleness())

    def _update_idle(self, now: float) -> None:
        if self._total is not None and self.steps >= self._total:
            self.waiting, self.idle = [], self.idle_tracker.report(self.idle_tracker.idleness())
            return
        metrics = self._run / METRICS
        last = metrics.stat().st_mtime if metrics.exists() else 0.0
        wait = self.idle_tracker.waiting(self.steps, last, now)
        idleness = self.idle_tracker.idleness(now, wait)
        self.waiting = idleness.why(wait) if wait else []
        self.idle = self.idle_tracker.report(idleness)

    def _new_entries(self) -> Iterator[Entry]:
        files = sorted((self._run / LEDGER).glob("*.jsonl"))
        parsed = [map(ENTRY.validate_json, self._new_lines(path)) for path in files]
        for entry in heapq.merge(*parsed, key=lambda entry: entry.time):
            self._count(entry)
            yield entry

    def _count(self, entry: Entry) -> None:
        if of_evaluation(rollout_of(entry)):
            self.evaluating += isinstance(entry, entries.Started)
            self.evaluating -= isinstance(entry, entries.Scored | entries.RolloutRaised)
            return
        match entry:
            case entries.Started():
                self.started += 1
            case entries.Scored():
                self.scored += 1
            case entries.Posted():  # a resumed run posts known requests again
                self.posted += self.idle_tracker.request(entry.request.request_id) is None
            case entries.RequestEnded():
                result = entry.outcome.result
                self.outcomes[result.fault.value if isinstance(result, Failure) else "success"] += 1
                self.masking_answers.add(entry.outcome)
            case entries.RolloutEnded():
                self.states[entry.state] += 1
                self._uncommitted[entry.rollout_id] = entry.state, entry.step
                if entry.state == "masked":
                    self._masked(entry)
            case entries.Paused():
                self.paused = entry
            case entries.PauseEnded():
                self.paused = None
            case entries.Abandoned():
                self.states["cancelled"] += 1
            case entries.CheckpointSaved():
                kept = self._uncommitted.items()
                self._uncommitted = {name: end for name, end in kept if end[1] > entry.step}
            case entries.Resumed():
                for state, step in self._uncommitted.values():
                    if step > entry.step or state == "cancelled":
                        self.states[state] -= 1
                        self.masked[DROPPED] -= state == "masked"
                self._uncommitted.clear()
                self.paused = None
                self.started = self.scored = self.evaluating = 0

    def _masked(self, entry: entries.RolloutEnded) -> None:
        causes = causes_of(entry)
        self.masked.update(causes)
        self.masked_rollouts += DROPPED not in causes

    def _new_lines(self, path: Path) -> list[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offsets[path] = self._offsets.get(path, 0) + whole
        return data[:whole].split(b"\n")[:-1]
