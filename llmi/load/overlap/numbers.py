"""The numbers of one variant of `llmi bench overlap`, from its finished run.

Invariants:
- Pure. All numbers come from the ledger and verl's metrics, and cover the same steps.
- Ratios are in [0, 1].
- The work of a queue counts trained groups only. Dropped groups would raise the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from llmi.load.overlap.run import Step, VariantRun
from llmi.load.overlap.spans import covered_s
from llmi.load.spread import Spread
from policy.ledger.records import RequestRecord

WEIGHT_SYNC = "timing_s/update_weights"
REWARD = "critic/score/mean"
STALENESS = "training/off_policy/trajectory_staleness/mean"
STALENESS_WORST = "training/off_policy/trajectory_staleness_worst/max"


@dataclass(frozen=True)
class Repeated:
    """A number over all measured steps (`overall`), and its median, minimum and maximum over the windows."""

    overall: float
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, windows: Sequence[Sequence[Step]], value: Callable[[Sequence[Step]], float]) -> Repeated:
        values = [value(window) for window in windows]
        overall = value([step for window in windows for step in window])
        return cls(overall, median(values), min(values), max(values))


@dataclass(frozen=True)
class QueueNumbers:
    """One queue, over the requests of the groups that were trained on in the measured steps.

    - `requests`: per step.
    - `never_started`: requests that the client ended before a worker started them. Only `requests` and this
      number count them.
    - `wait_p50_s`, `wait_p99_s`: time from when a request was due (`VariantRun.due`) to its start.
      Percentiles by the nearest rank.
    - `service_s`: mean time of a job. `work_s`: service seconds per step.
    """

    slots: int
    requests: float
    never_started: int
    wait_p50_s: float
    wait_p99_s: float
    service_s: float
    work_s: float


@dataclass(frozen=True)
class VariantNumbers:
    """One variant. Ratios are shares of the measured time.

    - `samples`: trained on in the measured time; at most `samples_per_step` in each step.
    - `trainer_idle_ratio`: the trainer waited for samples; does not include `weight_sync_ratio`.
    - `generation_idle_ratio`: no text was being generated.
    - `staleness_mean`, `staleness_worst`: in trainer steps, as verl counts them.
    - `stale_groups`: groups that were dropped as too old.
    """

    name: str
    steps: int
    repeats: int
    samples_per_step: int
    samples: int
    seconds_per_step: Repeated
    samples_per_s: Repeated
    trainer_idle_ratio: Repeated
    weight_sync_ratio: float
    generation_idle_ratio: float
    staleness_mean: float
    staleness_worst: float
    stale_groups: int
    reward: float
    peak_rss_bytes: int
    queues: dict[str, QueueNumbers]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(variant: VariantRun) -> VariantNumbers:
    """The numbers of `variant`. Raises ValueError when its steps are too few, or lack a metric."""
    steps = variant.steps
    time_s = seconds(steps)
    return VariantNumbers(
        name=variant.name,
        steps=len(steps),
        repeats=variant.repeats,
        samples_per_step=variant.samples_per_step,
        samples=variant.trained(steps),
        seconds_per_step=Repeated.of(variant.windows, lambda part: seconds(part) / len(part)),
        samples_per_s=Repeated.of(variant.windows, lambda part: variant.trained(part) / seconds(part)),
        trainer_idle_ratio=Repeated.of(variant.windows, lambda part: waited(part) / seconds(part)),
        weight_sync_ratio=sum(step.metric(WEIGHT_SYNC) for step in steps) / time_s,
        generation_idle_ratio=1 - generated(variant) / time_s,
        staleness_mean=fmean(step.metric(STALENESS) for step in steps),
        staleness_worst=max(step.metric(STALENESS_WORST) for step in steps),
        stale_groups=_stale_groups(variant),
        reward=fmean(step.metric(REWARD) for step in steps),
        peak_rss_bytes=variant.peak_rss_bytes,
        queues=queues(variant),
    )


def seconds(steps: Sequence[Step]) -> float:
    """From the first one's beginning to the last one's end; they follow each other."""
    return steps[-1].ended - steps[0].began


def waited(steps: Sequence[Step]) -> float:
    """Seconds in which the trainer waited for samples."""
    return sum(step.waited_s for step in steps)


def generated(variant: VariantRun) -> float:
    """Seconds of the measured time in which at least one text was being written."""
    steps = variant.steps
    written = (span for rollout in variant.ledger.rollouts.values() for span in rollout.segments)
    return covered_s(written, (steps[0].began, steps[-1].ended))


def queues(variant: VariantRun) -> dict[str, QueueNumbers]:
    """By queue, for each of `variant.slots`. Raises KeyError for a request of another."""
    steps = variant.steps
    groups = variant.groups(steps)
    records: dict[str, list[RequestRecord]] = {queue: [] for queue in variant.slots}
    for record in variant.ledger.requests.values():
        if variant.group_of(record) in groups:
            records[record.request.kind].append(record)
    return {
        queue: _queue(variant, variant.slots[queue], found, len(steps)) for queue, found in records.items()
    }


def _queue(variant: VariantRun, slots: int, records: list[RequestRecord], steps: int) -> QueueNumbers:
    outcomes = [record.outcome for record in records if record.outcome and record.outcome.started]
    # Clocks of two machines may differ by more than a short wait.
    waits = Spread.of([max(0.0, outcome.started - variant.due[outcome.request_id]) for outcome in outcomes])
    services = [outcome.finished - outcome.started for outcome in outcomes]
    return QueueNumbers(
        slots=slots,
        requests=len(records) / steps,
        never_started=len(records) - len(outcomes),
        wait_p50_s=waits.p50 / 1000,
        wait_p99_s=waits.p99 / 1000,
        service_s=fmean(services) if services else 0.0,
        work_s=sum(services) / steps,
    )


def _stale_groups(variant: VariantRun) -> int:
    numbers = {step.number for step in variant.steps}
    dropped = (r for r in variant.ledger.rollouts.values() if r.state == "stale" and r.step in numbers)
    return len({rollout.uid for rollout in dropped})
