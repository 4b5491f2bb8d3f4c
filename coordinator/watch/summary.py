"""The numbers of a run, from its metrics file and its ledger. Pure.

Invariants:
- Every number is counted from what the run recorded.
- A request is lost when it has no outcome although its rollout ended or its deadline passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, JsonValue

from coordinator.watch.idle.report import Idleness
from coordinator.watch.idle.spans import rounded
from coordinator.watch.masking_answers import MaskingAnswers
from coordinator.watch.metric_lines import Row, metric_lines
from policy.ledger.groups import group_summary
from policy.ledger.masked import by_cause, by_step, masked_samples
from policy.ledger.reader import reward_curve
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from workers.messages import Success

SUMMARY = "summary.json"
WAIT, STEP = "timing_s/gen", "timing_s/step"


class KindCounts(BaseModel):
    """Requests of one kind (a tool or a judge): posted, and how they ended."""

    posted: int = 0
    success: int = 0
    model: int = 0
    infrastructure: int = 0


class Summary(BaseModel):
    """The numbers of a run. Rewards lie in [0, 1].

    - `outcomes`: requests by `success` or the cause of the failure; `rollouts`: by terminal state.
    - `masked`: samples masked by infrastructure. `dropped_with_group`: samples with a reward, dropped because
      their group had too few valid samples or no signal. `rollouts["masked"]` is the sum of both.
    - `masked_by_cause` counts a sample once for each of its causes.
    - `n_valid` to `dropped_by_latency`: see `policy.ledger.groups.GroupSummary`.
    - `trainer_idle_ratio`: share of the steps' time spent waiting for samples. `generator_idle_ratio`: share
      of the time from the first rollout to the last batch.
    - `trainer_idle_s`, `generator_idle_s`: seconds by cause (`coordinator.watch.idle.path.CAUSES`); the
      trainer's include weight syncs.
    - `masking_answers`: count of each answer that masked samples, by kind
      (`coordinator.watch.masking_answers`).
    - `peak_rss_bytes`: of all processes together; a shared page counts once (Linux's PSS).
    """

    name: str
    seed: int
    steps: int
    reward_first: float | None
    reward_last: float | None
    requests_posted: int
    outcomes: dict[str, int]
    by_tool: dict[str, KindCounts]
    rollouts: dict[str, int]
    masked: int
    masked_by_cause: dict[str, int]
    masked_by_step: dict[int, int]
    dropped_with_group: int
    dropped_by_step: dict[int, int]
    n_valid: int
    n_total: int
    masking_answers: dict[str, dict[str, int]]
    groups_replaced: dict[str, int]
    dropped_by_latency: list[float]
    lost: int
    violations: int
    worker_restarts: int
    trainer_idle_ratio: float | None
    trainer_idle_s: dict[str, float]
    generator_idle_ratio: float | None
    generator_idle_s: dict[str, float]
    peak_rss_bytes: int
    seconds: float


def read_metrics(path: Path) -> list[Row]:
    """The metrics of each step, with those of evaluations that ended after it: the last such one."""
    steps: dict[str, Row] = {}
    for row in metric_lines(path):
        steps.setdefault(str(row["step"]), {}).update(row)
    return list(steps.values())


def first_and_last(values: Sequence[float], share: float = 0.2) -> tuple[float | None, float | None]:
    """Means of the first and the last `share` of the values (at least one each); None without values."""
    if not values:
        return None, None
    width = max(1, int(len(values) * share))
    return sum(values[:width]) / width, sum(values[-width:]) / width


def idle_ratio(metrics: Iterable[dict[str, JsonValue]]) -> float | None:
    """Seconds that the trainer waited for samples, over the seconds of its steps; None before a step."""
    waited = total = 0.0
    for row in metrics:
        wait, step = row.get(WAIT), row.get(STEP)
        if isinstance(wait, int | float) and isinstance(step, int | float):
            waited, total = waited + wait, total + step
    return waited / total if total else None


def lost_requests(ledger: Ledger, now: float) -> list[RequestRecord]:
    """Requests without an outcome though their deadline passed or their rollout ended. `now` in Unix seconds.

    Call this before the ledger is closed, since closing gives every open request an outcome.
    """
    return [
        record for record in ledger.pending if record.request.deadline < now or _ended(ledger.owner(record))
    ]


def _ended(owner: RolloutRecord | None) -> bool:
    return owner is not None and owner.state is not None


def summarize(
    ledger: Ledger,
    metrics: Sequence[dict[str, JsonValue]],
    *,
    name: str,
    seed: int,
    lost: int,
    worker_restarts: int,
    peak_rss_bytes: int,
    seconds: float,
) -> Summary:
    """Compute the summary from a closed `ledger`. `lost`: counted before it was closed."""
    outcomes: Counter[str] = Counter()
    kinds: dict[str, KindCounts] = {}
    masking = MaskingAnswers()
    for record in ledger.requests.values():
        counts = kinds.setdefault(record.request.kind, KindCounts())
        counts.posted += 1
        if record.outcome is None:
            continue
        result = record.outcome.result
        masking.add(record.outcome)
        if isinstance(result, Success):
            outcomes["success"] += 1
            counts.success += 1
        else:
            outcomes[result.cause.value] += 1
            name_of = result.fault.value
            setattr(counts, name_of, getattr(counts, name_of) + 1)
    first, last = first_and_last(list(reward_curve(ledger).values()))
    states, masks = ledger.states(), masked_samples(ledger)
    masked_by_step, dropped_by_step = by_step(masks), by_step(masks, dropped=True)
    groups = group_summary(ledger)
    idle = Idleness(ledger, metrics).report()
    return Summary(
        name=name,
        seed=seed,
        steps=len(metrics),
        reward_first=first,
        reward_last=last,
        requests_posted=len(ledger.requests),
        outcomes=dict(sorted(outcomes.items())),
        by_tool=dict(sorted(kinds.items())),
        rollouts=dict(sorted(states.items())),
        masked=sum(masked_by_step.values()),
        masked_by_cause=by_cause(masks),
        masked_by_step=masked_by_step,
        dropped_with_group=sum(dropped_by_step.values()),
        dropped_by_step=dropped_by_step,
        n_valid=groups.n_valid,
        n_total=groups.n_total,
        masking_answers=masking.counts,
        groups_replaced=groups.replaced,
        dropped_by_latency=groups.dropped_by_latency,
        lost=lost,
        violations=len(ledger.violations),
        worker_restarts=worker_restarts,
        trainer_idle_ratio=idle_ratio(metrics),
        trainer_idle_s=rounded(idle.trainer),
        generator_idle_ratio=idle.generator_ratio,
        generator_idle_s=rounded(idle.generator),
        peak_rss_bytes=peak_rss_bytes,
        seconds=seconds,
    )
