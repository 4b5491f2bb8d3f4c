"""Why the trainer and the generator were idle: seconds by cause, from the ledger and the metrics. Pure.

The trainer is idle while it waits for a batch and while weights are synchronised. A batch waits for the
critical path of its last rollout. The generator is idle while no rollout of training is generated, also while
it writes documents of an evaluation. It waits for the critical path of the oldest rollout in flight.

Invariants: every idle second is counted once, so the causes add up to the idle time; no cause is negative.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from coordinator.watch.idle.path import (
    BOOKKEEPING,
    GENERATION,
    NOT_ADMITTED,
    PAUSED,
    REFILL,
    UNEXPLAINED,
    WEIGHT_SYNC,
    critical_path,
    end_of,
    writing,
)
from coordinator.watch.idle.spans import Interval, Span, gaps, merged, totals, within
from policy.ledger.entries import TrainerWaited
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord

STEP, SYNC = "timing_s/step", "timing_s/update_weights"
Metrics = Mapping[str, object]


@dataclass(frozen=True)
class IdleReport:
    """Idle seconds by cause, the largest first. `observed_s`: time over which the generator is observed."""

    trainer: dict[str, float]
    generator: dict[str, float]
    observed_s: float

    @property
    def generator_ratio(self) -> float | None:
        """Share of the observed time that the generator was idle; None before any."""
        return sum(self.generator.values()) / self.observed_s if self.observed_s else None


class Idleness:
    """Idle times of one ledger and the metrics of its steps.

    `now` (Unix seconds): the end, for a run that goes on; `waiting`: the trainer's wait that goes on.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: Iterable[Metrics],
        *,
        now: float | None = None,
        waiting: TrainerWaited | None = None,
    ):
        self._ledger = ledger
        self.now = math.inf if now is None else now
        self.waits = _apart([*ledger.waits, *([waiting] if waiting else [])])
        self.syncs = _syncs(self.waits, metrics)
        self._open_wait = waiting
        self._rollouts = sorted(
            (rollout for rollout in ledger.rollouts.values() if rollout.task is not None),
            key=lambda rollout: rollout.started,
        )
        self._batches: dict[int, list[RolloutRecord]] = defaultdict(list)
        self._discarded: dict[int, list[float]] = defaultdict(list)
        self._groups: dict[str, list[RolloutRecord]] = defaultdict(list)
        for rollout in self._rollouts:
            self._groups[rollout.uid].append(rollout)
            if rollout.state == "trained":
                self._batches[rollout.step].append(rollout)
            elif rollout.state in ("stale", "failed", "masked"):  # one that masked itself was in no step
                self._discarded[rollout.step].append(rollout.ended)
        self._requests: dict[str, list[RequestRecord]] = defaultdict(list)
        for record in ledger.requests.values():
            self._requests[record.request.owner].append(record)
        self._path = cache(self._find_path)

    def report(self, since: float = 0.0, until: float = math.inf) -> IdleReport:
        """Idle times between `since` and `until`; the generator's end with the last wait or `now`."""
        trainer = [span for wait in self.waits for span in self.why(wait)]
        trainer += [Span(WEIGHT_SYNC, *sync) for sync in self.syncs]
        starts = [wait.began for wait in self.waits[:1]] + [r.started for r in self._rollouts[:1]]
        last = self.now if self.now < math.inf else max((wait.time for wait in self.waits), default=0.0)
        low, high = max(since, min(starts, default=math.inf)), min(until, last)
        generator = self._generator(low, high) if low < high else []
        return IdleReport(
            trainer=totals(within(trainer, since, until)),
            generator=totals(generator),
            observed_s=max(0.0, high - low),
        )

    def why(self, wait: TrainerWaited) -> list[Span]:
        """What the trainer waited for, in order, from the wait's beginning to its end."""
        rollout = self._awaited(wait)
        if rollout is None:
            cause = NOT_ADMITTED if wait == self._open_wait else UNEXPLAINED
            return self._paused([Span(cause, wait.began, wait.time)] if wait.began < wait.time else [])
        replaces = self._replaces(rollout, wait)
        spans = [Span(REFILL if replaces else NOT_ADMITTED, -math.inf, rollout.started)]
        for span in self._path(rollout.rollout_id):
            renamed = replaces and span.cause == GENERATION
            spans.append(Span(REFILL, span.began, span.ended) if renamed else span)
        spans.append(Span(BOOKKEEPING, spans[-1].ended, math.inf))
        return self._paused(within(spans, wait.began, wait.time))

    def _paused(self, spans: list[Span]) -> list[Span]:
        """The same spans, with `NOT_ADMITTED` renamed to `PAUSED` while admission was paused."""
        found = []
        for span in spans:
            if span.cause != NOT_ADMITTED:
                found.append(span)
                continue
            paused = merged(self._ledger.pauses, span.began, span.ended)
            parts = [Span(PAUSED, *part) for part in paused]
            parts += [Span(NOT_ADMITTED, *part) for part in gaps(paused, span.began, span.ended)]
            found += sorted(parts, key=lambda part: part.began)
        return found

    def oldest(self) -> RolloutRecord | None:
        """The rollout in flight that started first."""
        return next((r for r in self._rollouts if r.started < self.now < end_of(r)), None)

    def _awaited(self, wait: TrainerWaited) -> RolloutRecord | None:
        """The last rollout of the batch that the wait ended with. For a wait that goes on: the oldest, since
        batches are made of the oldest groups."""
        if wait == self._open_wait:
            return self.oldest()
        batch = {r.uid for r in self._batches[wait.step] if wait.began <= r.ended <= wait.time}
        ended = (r for uid in batch for r in self._groups[uid] if end_of(r) < math.inf)
        return max(ended, key=end_of, default=None)

    def _replaces(self, rollout: RolloutRecord, wait: TrainerWaited) -> bool:
        """Whether it was started after a group had been discarded in this step."""
        discarded = min(self._discarded[wait.step], default=math.inf)
        return wait.began <= rollout.started and discarded <= rollout.started

    def _find_path(self, rollout_id: str) -> list[Span]:
        rollout = self._ledger.rollouts[rollout_id]
        return critical_path(rollout, self._requests[rollout_id], self.now)

    def _generator(self, low: float, high: float) -> list[Span]:
        syncs = merged(self.syncs, low, high)
        written = [span for rollout in self._rollouts for span in writing(rollout, self.now)]
        idle = gaps(merged([*written, *syncs], low, high), low, high)
        spans = [Span(WEIGHT_SYNC, *sync) for sync in syncs]
        begins = [rollout.started for rollout in self._rollouts]
        ends = list(accumulate((end_of(rollout) for rollout in self._rollouts), max))
        for began, ended in idle:
            at = began
            while at < ended:
                first = bisect_right(ends, at)  # all before it have ended
                if first == len(begins) or begins[first] > at:
                    until = min(ended, begins[first] if first < len(begins) else ended)
                    spans.append(Span(NOT_ADMITTED, at, until))
                else:
                    until = min(ended, ends[first])
                    spans += within(self._path(self._rollouts[first].rollout_id), at, until)
                at = until
        return self._paused(spans)


def _apart(waits: list[TrainerWaited]) -> list[TrainerWaited]:
    """The waits in order, cut so that none overlaps another or ends before it starts."""
    found: list[TrainerWaited] = []
    for wait in sorted(waits, key=lambda wait: (wait.time, wait.began)):
        earliest = found[-1].time if found else -math.inf
        if not earliest <= wait.began <= wait.time:
            began = min(max(earliest, wait.began), wait.time)
            wait = wait.model_copy(update={"began": began})
        found.append(wait)
    return found


def _syncs(waits: Sequence[TrainerWaited], metrics: Iterable[Metrics]) -> list[Interval]:
    """When weights were sent: at the end of each step, for as long as verl reports. A step starts with its
    wait."""
    rows = {row.get("step"): row for row in metrics}
    found = []
    for number, wait in enumerate(waits):
        row = rows.get(wait.step, {})
        step, sync = row.get(STEP), row.get(SYNC)
        if not isinstance(step, int | float) or not isinstance(sync, int | float):
            continue
        after = waits[number + 1].began if number + 1 < len(waits) else math.inf
        ended = min(wait.began + step, after)
        began = max(wait.time, ended - sync)
        if began < ended:
            found.append((began, ended))
    return found
