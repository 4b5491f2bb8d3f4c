"""Where a run stands, from its folder and its Redis: what is waited for, and what is stuck.

Invariants: nothing of the run is changed; it may go on or have ended; a Redis that does not answer leaves its
part out.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import redis
from pydantic import BaseModel

from coordinator.config import CONFIG_FILE
from coordinator.exporter import ENDPOINTS, without_password
from coordinator.idle.spans import rounded
from coordinator.progress import Progress
from policy.ledger import RequestRecord
from policy.ledger_writer import LEDGER
from policy.training import METRICS
from workers.depths import read_depths
from workers.errors import ConfigError
from workers.settings import QueueSettings
from workers.whereabouts import Whereabouts, find

SUMMARY = "summary.json"
SLOW = 2.0  # times the median of its kind
SHOWN = 300  # characters of a prompt


class Waiting(BaseModel):
    """What the trainer waits for now: `cause`, for `seconds` of the `of_s` that it has waited."""

    cause: str
    seconds: float
    of_s: float


class Pending(BaseModel):
    """The request that has been without an outcome for longest. `age_s`: since it was posted; `prompt`: what
    waits for it; `state` in words; `stuck`: None where nobody can tell."""

    request_id: str
    tool: str
    age_s: float
    rollout: str
    prompt: str
    state: str
    stuck: bool | None


class Status(BaseModel):
    """`quiet_s`: since the run's last line. `waiting`: None while it trains; `queues`: None without Redis.
    Idle times as in `Summary`."""

    name: str
    ended: bool
    quiet_s: float
    step: int
    steps: int | None
    reward: float | None
    trainer_idle_ratio: float | None
    trainer_idle_s: dict[str, float]
    generator_idle_ratio: float | None
    generator_idle_s: dict[str, float]
    waiting: Waiting | None
    queues: dict[str, dict[str, int]] | None
    longest_pending: Pending | None


def look(run: Path) -> Status:
    """Read it all. Raises `ConfigError` for a folder that is no run's."""
    if not (run / CONFIG_FILE).is_file():
        raise ConfigError(f"{run}: no run has begun there; name a run's folder, or its name under --runs")
    config = json.loads((run / CONFIG_FILE).read_text())
    ended, now = (run / SUMMARY).exists(), time.time()
    progress = Progress(run)
    if ended:
        progress.conclude()
    else:
        progress.update()
    queue = QueueSettings.model_validate(config.get("queue", {}))
    url = "" if ended else _redis(run, queue)
    pending = [] if ended else progress.watch.pending(now)
    return Status(
        name=config.get("name") or run.name,
        ended=ended,
        quiet_s=round(now - _last_written(run), 1),
        step=progress.steps,
        steps=config.get("train", {}).get("steps"),
        reward=progress.rewards[-1] if progress.rewards else None,
        trainer_idle_ratio=progress.idle_ratio,
        trainer_idle_s=rounded(progress.idle.trainer),
        generator_idle_ratio=progress.idle.generator_ratio,
        generator_idle_s=rounded(progress.idle.generator),
        waiting=waiting(progress),
        queues=_queues(url),
        longest_pending=_longest(pending[0], progress, url, queue, now) if pending else None,
    )


def waiting(progress: Progress) -> Waiting | None:
    """What the trainer waits for, as its last span tells."""
    spans = progress.waiting
    if not spans:
        return None
    own = sum(span.seconds for span in spans if span.cause == spans[-1].cause)
    return Waiting(cause=spans[-1].cause, seconds=own, of_s=sum(span.seconds for span in spans))


def told(where: Whereabouts | None, median_s: float | None, lease_s: float) -> str:
    """A request's whereabouts in words; None: Redis does not answer. `median_s` of its kind's service."""
    if where is None:
        return "no outcome yet, and Redis does not answer"
    match where.place:
        case "waiting":
            ahead = f"{where.before} before it" if where.before else "the next in line"
            return f"waiting for a slot ({ahead}, {where.workers} workers)"
        case "running":
            usual = f"median of its kind is {median_s:.1f} s" if median_s is not None else ""
            slow = "slow: " if median_s is not None and where.for_s > SLOW * median_s else ""
            note = f" ({slow}{usual})" if usual else ""
            return f"running for {where.for_s:.0f} s on a live worker{note}"
        case "silent":
            return f"stuck: its worker has been silent for {where.for_s:.0f} s (lease: {lease_s:.0f} s)"
        case "unserved" if where.loading:
            return f"waiting for {where.loading} workers that are loading"
        case "unserved":
            return "stuck: nobody serves this queue"
        case "missing":
            return f"stuck: a worker took it and fell silent; it is posted again after {lease_s:.0f} s"
        case _:
            return "done: its outcome is on the way"


def whereabouts(url: str, queue: QueueSettings, record: RequestRecord) -> Whereabouts | None:
    """Where a request is; None when the Redis at `url` does not answer, or none is named."""
    if not url:
        return None
    try:
        return find(url, queue, record.request.request_id, record.request.kind)
    except redis.RedisError:
        return None


def _longest(
    record: RequestRecord, progress: Progress, url: str, queue: QueueSettings, now: float
) -> Pending:
    rollout = progress.watch.owner(record)
    question = rollout.task.question if rollout and rollout.task else ""
    where = whereabouts(url, queue, record)
    return Pending(
        request_id=record.request.request_id,
        tool=record.request.kind,
        age_s=round(now - record.posted, 1),
        rollout=record.request.owner,
        prompt=question if len(question) <= SHOWN else f"{question[:SHOWN]}…",
        state=told(where, progress.watch.median_s(record.request.kind), queue.lease_s),
        stuck=where.stuck if where else None,
    )


def _redis(run: Path, queue: QueueSettings) -> str:
    """The URL of the run's Redis; with its password when the environment has it."""
    try:
        named = json.loads((run / ENDPOINTS).read_text())["redis"]
    except FileNotFoundError:
        return ""
    return queue.url if without_password(queue.url) == named else str(named)


def _queues(url: str) -> dict[str, dict[str, int]] | None:
    if not url:
        return None
    try:
        depths = read_depths(url)
    except redis.RedisError:
        return None
    return {name: {"waiting": depth.waiting, "running": depth.running} for name, depth in depths.items()}


def _last_written(run: Path) -> float:
    files = [run / CONFIG_FILE, run / METRICS, *(run / LEDGER).glob("*.jsonl")]
    return max(file.stat().st_mtime for file in files if file.exists())
