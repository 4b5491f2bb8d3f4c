"""Idle times of trainer and generator by cause, updated entry by entry while a run is in progress.

Invariants:
- Each entry is added once.
- Memory does not grow with the run. Steps that later entries cannot change are added to the sums and dropped.
- After the last entry the sums equal the result of `Idleness` on the whole ledger. One exception: rollouts
  that continue for a moment after their group failed.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Iterable
from statistics import median
from typing import Any

from coordinator.watch.idle.path import end_of
from coordinator.watch.idle.report import STEP, SYNC, Idleness, IdleReport
from policy.ledger.entries import Entry, GroupFailed, Posted, RequestEnded, Scored, TrainerWaited
from policy.ledger.merge import fail_rollout, merge
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord, of_evaluation, rollout_of

LAG_S = 3600.0  # a rollout that is in flight for longer counts as lost
LATE_S = 1.0  # an entry of another process may be read this long after its time
OVERDUE_S = 30.0  # a request is pending for at most this long after its deadline
SERVICES = 200  # last service times of a kind, for its median


class IdleTracker:
    """Idle times of a run. All times are Unix seconds."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._steps: dict[int, dict[str, object]] = {}
        self._late: list[Entry] = []
        self._since = 0.0
        self._trainer: dict[str, float] = defaultdict(float)
        self._generator: dict[str, float] = defaultdict(float)
        self._observed_s = 0.0
        self._services: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SERVICES))

    def add_step(self, step: int, data: dict[str, Any]) -> None:
        """Add the metrics of a step, before the entries of the next step."""
        self._steps[step] = {"step": step, STEP: data.get(STEP), SYNC: data.get(SYNC)}

    def add(self, entries: Iterable[Entry], now: float = math.inf) -> None:
        """Add entries, ordered by time.

        Entries of the last `LATE_S` before `now` wait for the next call, which may bring earlier ones.
        """
        late, self._late = self._late, []
        for entry in heapq.merge(late, entries, key=lambda entry: entry.time):
            if entry.time > now - LATE_S:
                self._late.append(entry)
            else:
                self._add(entry)

    @property
    def last_wait(self) -> TrainerWaited | None:
        """The wait that ended last."""
        return self._ledger.waits[-1] if self._ledger.waits else None

    def waiting(self, steps: int, since: float, now: float) -> TrainerWaited | None:
        """The unfinished wait of the trainer at `now`; None while it trains.

        `steps`: finished steps. `since`: when the last of them ended.
        """
        last = self.last_wait
        if last is None:
            since = min((rollout.started for rollout in self._started()), default=math.inf)
        elif last.step > steps:
            return None
        began = max(since, last.time if last else 0.0)
        return TrainerWaited(time=now, began=began, step=steps + 1) if began < now else None

    def idleness(self, now: float | None = None, waiting: TrainerWaited | None = None) -> Idleness:
        """Idle times of the last few steps, up to `now`."""
        return Idleness(self._ledger, list(self._steps.values()), now=now, waiting=waiting)

    def report(self, idleness: Idleness) -> IdleReport:
        """Idle times of the whole run, with its last steps from `idleness`."""
        rest = idleness.report(since=self._since, until=idleness.now)
        return IdleReport(
            _sum(self._trainer, rest.trainer),
            _sum(self._generator, rest.generator),
            self._observed_s + rest.observed_s,
        )

    def pending(self, now: float) -> list[RequestRecord]:
        """Requests of training without an outcome, the oldest first, except those past their deadlines."""
        waited_for = (
            record
            for record in self._ledger.pending
            if record.request.deadline + OVERDUE_S > now and not of_evaluation(record.request.owner)
        )
        return sorted(waited_for, key=lambda record: record.posted)

    def request(self, request_id: str) -> RequestRecord | None:
        """The request of this id, None once it was dropped."""
        return self._ledger.requests.get(request_id)

    def owner(self, record: RequestRecord) -> RolloutRecord | None:
        """The rollout that waits for a request."""
        return self._ledger.rollouts.get(record.request.owner)

    def median_s(self, kind: str) -> float | None:
        """Median service time of the last requests of this kind (seconds); None before the first."""
        return median(self._services[kind]) if self._services.get(kind) else None

    def _started(self) -> list[RolloutRecord]:
        return [rollout for rollout in self._ledger.rollouts.values() if rollout.task is not None]

    def _add(self, entry: Entry) -> None:
        if of_evaluation(rollout_of(entry)):  # the trainer waits for none of them
            return
        if isinstance(entry, Posted):  # the payload of a judge is a whole document
            kept = {key: value for key, value in entry.request.payload.items() if key == "image"}
            entry = entry.model_copy(update={"request": entry.request.model_copy(update={"payload": kept})})
        merge(self._ledger, entry)
        match entry:
            case Scored():
                rollout = self._ledger.rollouts[entry.document.rollout_id]
                rollout.document = rollout.score = None
            case RequestEnded() if entry.outcome.started and entry.outcome.finished:
                seconds = entry.outcome.finished - entry.outcome.started
                self._services[entry.outcome.kind].append(seconds)
            case GroupFailed():
                for rollout in self._ledger.open:
                    if rollout.uid == entry.uid:
                        fail_rollout(rollout, entry)
            case TrainerWaited():
                self._sum_up(entry.time)

    def _sum_up(self, now: float) -> None:
        """Add the time that cannot change any more to the sums, and drop its records.

        It ends with the last wait that was over before the oldest rollout in flight started.
        """
        open_ones = [rollout.started for rollout in self._started() if end_of(rollout) == math.inf]
        limit = max(min(open_ones, default=math.inf), now - LAG_S)
        past = [wait for wait in self._ledger.waits if self._since < wait.time <= limit]
        if not past:
            return
        cut = past[-1]
        summed = self.idleness().report(since=self._since, until=cut.time)
        self._trainer = _sum(self._trainer, summed.trainer)
        self._generator = _sum(self._generator, summed.generator)
        self._observed_s += summed.observed_s
        self._since = cut.time
        self._drop(cut)

    def _drop(self, cut: TrainerWaited) -> None:
        ledger = self._ledger
        ledger.violations.clear()
        ledger.dropped.clear()
        ledger.waits = [wait for wait in ledger.waits if wait.time >= cut.time]
        self._steps = {step: row for step, row in self._steps.items() if step >= cut.step}
        kept = {r.uid for r in ledger.rollouts.values() if not _over(r, cut)}
        ledger.rollouts = {name: r for name, r in ledger.rollouts.items() if r.uid in kept}
        ledger.requests = {
            name: record
            for name, record in ledger.requests.items()
            if record.outcome is None or record.request.owner in ledger.rollouts
        }


def _over(rollout: RolloutRecord, cut: TrainerWaited) -> bool:
    """Whether no time after `cut` depends on the rollout. The last wait that can is that of its own step."""
    lost = rollout.started < cut.time - LAG_S
    return lost or (rollout.state is not None and end_of(rollout) <= cut.time and rollout.step < cut.step)


def _sum(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    seconds = {cause: one.get(cause, 0.0) + other.get(cause, 0.0) for cause in {**one, **other}}
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))
