"""A finished run of one variant of `llmi bench overlap`, divided into steps.

Invariants:
- A step lasts until the next one begins, so the steps cover all of the time.
- Only steps that the run finished are measured.
- A window is some consecutive steps. The windows have equal length and follow each other without a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from coordinator.watch.summary import STEP
from llmi.tools import SOURCES
from policy.ledger.entries import Span
from policy.ledger.records import Ledger, RequestRecord


@dataclass(frozen=True)
class Step:
    """One step of the trainer, from `began` to `ended` (Unix seconds).

    `waits`: the times in which it waited for samples. `metrics`: verl's metrics of the step.
    """

    number: int
    began: float
    ended: float
    waits: tuple[Span, ...]
    metrics: Mapping[str, JsonValue]

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def waited_s(self) -> float:
        return sum(ended - began for began, ended in self.waits)

    def metric(self, name: str) -> float:
        """Raises ValueError when the step lacks it."""
        return _metric(self.metrics, name)


@dataclass(frozen=True)
class VariantRun:
    """The records of a finished run.

    - `metrics`: as `coordinator.watch.summary.read_metrics` returns them.
    - `slots`: how many requests each queue serves at once.
    - `warm`, `cool`: steps at the start and at the end that are not measured. In its last steps a run submits
      nothing any more.
    - `repeats`: number of windows into which the measured steps are divided.
    - `phased`: a batch starts its tools after its last text, and its judges after its last tool.
    """

    name: str
    ledger: Ledger
    metrics: list[dict[str, JsonValue]]
    samples_per_step: int
    slots: Mapping[str, int]
    warm: int
    repeats: int
    phased: bool
    peak_rss_bytes: int
    cool: int = 0

    @cached_property
    def windows(self) -> list[list[Step]]:
        """The measured steps. Raises ValueError with fewer than one for each repeat."""
        steps = finished_steps(self.ledger, self.metrics)
        steps = steps[self.warm : len(steps) - self.cool]
        length = len(steps) // self.repeats
        if not length:
            raise ValueError(
                f"{self.name}: {len(steps)} steps after {self.warm} are too few for {self.repeats}"
            )
        first = len(steps) - length * self.repeats
        return [steps[at : at + length] for at in range(first, len(steps), length)]

    @property
    def steps(self) -> list[Step]:
        """All that are measured, in order."""
        return [step for window in self.windows for step in window]

    def trained(self, steps: Sequence[Step]) -> int:
        """Samples that were trained on in these steps."""
        numbers = {step.number for step in steps}
        return sum(r.state == "trained" and r.step in numbers for r in self.ledger.rollouts.values())

    def groups(self, steps: Sequence[Step]) -> set[str]:
        """The groups that were trained on in these steps."""
        numbers = {step.number for step in steps}
        return {r.uid for r in self.ledger.rollouts.values() if r.state == "trained" and r.step in numbers}

    def group_of(self, record: RequestRecord) -> str:
        """The group of the rollout that posted it."""
        return self.ledger.rollouts[record.request.owner].uid

    @cached_property
    def due(self) -> dict[str, float]:
        """The time at which each request could be posted (Unix seconds), by id.

        It is posted at once, except in a phased variant, where it may wait for a thread of the client. There
        a tool is due when the last text of the step's batch is written, and a judge when the batch's last
        tool has ended. An edit is due when its input image has arrived, and is posted then.
        """
        requests = self.ledger.requests
        due = {request_id: record.posted for request_id, record in requests.items()}
        if not self.phased:
            return due
        step_of = {name: rollout.submitted_step for name, rollout in self.ledger.rollouts.items()}
        written: dict[int, float] = defaultdict(float)
        for rollout in self.ledger.rollouts.values():
            written[rollout.submitted_step] = max(written[rollout.submitted_step], rollout.generated)
        tooled = written.copy()
        for record in requests.values():
            if record.request.kind in SOURCES:
                step = step_of[record.request.owner]
                tooled[step] = max(tooled[step], record.ended)
        for request_id, record in requests.items():
            if record.request.kind != "edit":
                turns = written if record.request.kind in SOURCES else tooled
                # A group that replaces another may be posted before its own text moved the step's turn.
                due[request_id] = min(record.posted, turns[step_of[record.request.owner]])
        return due


def finished_steps(ledger: Ledger, metrics: Sequence[Mapping[str, JsonValue]]) -> list[Step]:
    """The steps that a run finished, in order. `metrics`: as `coordinator.watch.summary.read_metrics` returns
    them. Raises ValueError when a metric is missing."""
    waits: dict[int, list[Span]] = defaultdict(list)
    for wait in ledger.waits:
        waits[wait.step].append((wait.began, wait.time))
    rows = {int(_metric(row, "step")): row for row in metrics}
    began = {number: min(spans)[0] for number, spans in waits.items()}
    steps = []
    for number in sorted(waits.keys() & rows.keys()):
        # The last step has none after it: verl's own time for it lacks only the writing of its metrics.
        last = began[number] + _metric(rows[number], STEP)
        ended = began.get(number + 1, last)
        steps.append(Step(number, began[number], ended, tuple(sorted(waits[number])), rows[number]))
    return steps


def _metric(row: Mapping[str, JsonValue], name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float):
        raise ValueError(f"the metrics of step {row['step']} lack {name}")
    return float(value)
