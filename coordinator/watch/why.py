"""What happened to one sample, read from the ledger of its run.

Invariants: nothing but the run's folder is read, so the run may go on, have ended or have died; a request
without an outcome is shown as pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue

from coordinator.config.settings import CONFIG_FILE
from policy.ledger.entries import LEDGER
from policy.ledger.masked import failed_requests, group_steps, mask_reasons
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from workers.errors import ConfigError
from workers.messages import Success
from workers.text.names import near_names

NEAR = 5  # ids that a message names
PREFIX = 4  # characters; ids that share so many with the wanted one are near


class RequestReport(BaseModel):
    """One request.

    `outcome`: `success`, a cause, or `pending`; `fault`: of a failure, else empty. `queue_s`: seconds from
    post to start; `run_s`: seconds from start to end; None when unknown. `verdict`, `expected`, `reasons`: of
    a judge, by axis.
    """

    request_id: str
    kind: str
    outcome: str
    fault: str = ""
    detail: str = ""
    provider: str = ""
    worker: str = ""
    queue_s: float | None = None
    run_s: float | None = None
    verdict: dict[str, int] | None = None
    expected: dict[str, float] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)


class SampleReport(BaseModel):
    """What the ledger holds about a sample.

    - `versions`: oldest and newest weights that generated it.
    - `step`: in which its group was trained on or dropped; 0 before that.
    - `masked_by`: `(what failed, cause, detail)` of each failure that masked it.
    - `siblings`: reward (or None) and state of every sample of its group, by id.
    """

    rollout: str
    group: str
    prompt: str
    submitted_step: int
    step: int
    versions: tuple[int, int] | None
    tokens: int
    segments: int
    generation_s: float | None
    state: str
    reason: str
    reward: float | None
    breakdown: dict[str, JsonValue]
    masked_by: list[tuple[str, str, str]]
    requests: list[RequestReport]
    siblings: dict[str, tuple[float | None, str]]


def ledger_of(run: Path) -> Ledger:
    """Read the ledger of a run. Raises `ConfigError` when there is none, or one of another version."""
    if not (run / CONFIG_FILE).is_file() or not (run / LEDGER).is_dir():
        hint = "name a run's folder, or its name under --dir"
        if (run / "batch.json").is_file():
            hint += "; of an evaluation see `llmi evaluate report`"
        raise ConfigError(f"{run}: no run has started there; {hint}")
    try:
        return read_ledger(run)
    except ValueError as error:
        raise ConfigError(
            f"the ledger cannot be read; it is damaged, or another version wrote it: {error}"
        ) from error


def find(ledger: Ledger, wanted: str) -> RolloutRecord:
    """Find a rollout by its id, the start of its id, the start of its group's id with the sibling's number
    (`5f3a_2`), or the id of one of its requests. Raises `ConfigError` that names similar ids."""
    known = ledger.rollouts | ledger.evaluated
    if wanted in known:
        return known[wanted]
    if wanted in ledger.requests and (owner := ledger.owner(ledger.requests[wanted])):
        return owner
    begins = sorted(name for name in known if _meant(wanted, name))
    if len(begins) == 1:
        return known[begins[0]]
    if begins:
        raise ConfigError(f"ROLLOUT: {len(begins)} ids start with {wanted}: {_some(begins)}; give more of it")
    if not known:
        raise ConfigError(f"ROLLOUT: {wanted}: this run has started no rollout yet")
    near = near_names(wanted, known, most=NEAR, prefix=PREFIX)
    raise ConfigError(
        f"ROLLOUT: no id starts with {wanted or 'nothing'}; "
        + (f"similar ids: {_some(near)}" if near else f"such as: {_some(sorted(known))}")
        + "; `llmi why RUN` lists the masked ones"
    )


def _meant(wanted: str, name: str) -> bool:
    """Whether `name`, or its group with that sibling's number, starts with `wanted`."""
    if not wanted:
        return False
    group, _, sibling = wanted.rpartition("_")
    of_sibling = bool(group) and name.startswith(group) and name.rpartition("_")[2] == sibling
    return of_sibling or (name.startswith(wanted) and name != wanted)


def describe(ledger: Ledger, rollout: RolloutRecord) -> SampleReport:
    """Collect what the ledger holds about `rollout`."""
    requests = [r for r in ledger.requests.values() if r.request.owner == rollout.rollout_id]
    siblings = sorted((r for r in ledger.rollouts.values() if r.uid == rollout.uid), key=_age)
    return SampleReport(
        rollout=rollout.rollout_id,
        group=rollout.uid,
        prompt=rollout.task.question if rollout.task else "",
        submitted_step=rollout.submitted_step,
        step=rollout.step or group_steps(ledger).get(rollout.uid, 0),
        versions=rollout.versions,
        tokens=rollout.tokens,
        segments=len(rollout.segments),
        generation_s=round(rollout.generated - rollout.started, 2)
        if rollout.generated and rollout.started
        else None,
        state=rollout.state or "open",
        reason=rollout.reason,
        reward=rollout.reward,
        breakdown=rollout.score.breakdown if rollout.score else {},
        masked_by=[
            (one.by, one.failure.cause.value, one.failure.detail)
            for one in mask_reasons(failed_requests(ledger), rollout)
        ],
        requests=[_request(record) for record in sorted(requests, key=lambda record: record.posted)],
        siblings={one.rollout_id: (one.reward, _ended(one)) for one in siblings},
    )


def _request(record: RequestRecord) -> RequestReport:
    request, outcome = record.request, record.outcome
    report = RequestReport(request_id=request.request_id, kind=request.kind, outcome="pending")
    if outcome is None:
        return report
    times: dict[str, object] = {"worker": outcome.worker}
    if outcome.started:
        times["queue_s"] = round(max(0.0, outcome.started - record.posted), 2)
        if outcome.finished:
            times["run_s"] = round(outcome.finished - outcome.started, 2)
    result = outcome.result
    if isinstance(result, Success):
        source = result.source
        provider = str(source.get("provider") or source.get("judge") or source.get("model") or "")
        how: dict[str, object] = {"outcome": "success", "provider": provider, "verdict": result.verdict}
        how |= {name: source[name] for name in ("expected", "reasons") if name in source}
    else:
        how = {
            "outcome": result.cause.value,
            "fault": result.fault.value,
            "detail": result.detail,
            "provider": result.provider,
        }
    return report.model_copy(update=times | how)


def _ended(rollout: RolloutRecord) -> str:
    """The state; a masked sample with a reward was dropped with its group."""
    if rollout.state == "masked" and rollout.reward is not None:
        return "dropped with its group"
    return rollout.state or "open"


def _age(rollout: RolloutRecord) -> tuple[float, str]:
    return rollout.started, rollout.rollout_id


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NEAR} more" if len(names) > NEAR else ""
    return ", ".join(names[:NEAR]) + more
