"""The status of a run, read from its folder and its Redis: what is waited for, and what is stuck.

Invariants: nothing of the run is changed; it may go on or have ended; without Redis its part is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import redis
from pydantic import BaseModel, ValidationError

from coordinator.config.settings import CONFIG_FILE
from coordinator.watch.evaluations import Evaluated
from coordinator.watch.exporter import ENDPOINTS
from coordinator.watch.idle.spans import rounded
from coordinator.watch.progress import Progress
from coordinator.watch.request_status import RequestStatusPoller, describe, open_circuit, request_status
from coordinator.watch.summary import SUMMARY
from policy.ledger.entries import LEDGER
from policy.ledger.records import RequestRecord
from policy.settings import METRICS
from policy.sft.settings import EXAMPLES
from workers.broker.breakers import read_breakers
from workers.broker.depths import read_depths
from workers.errors import ConfigError
from workers.redis_url import without_password
from workers.settings import QueueSettings

SHOWN = 300  # characters of a prompt


class Waiting(BaseModel):
    """What the trainer waits for now.

    `cause` explains `seconds` of the `of_s` seconds waited so far. `request_id` and `state` (in words): the
    request that causes it, empty without one.
    """

    cause: str
    seconds: float
    of_s: float
    request_id: str = ""
    state: str = ""


class Pending(BaseModel):
    """The request that has been without an outcome for longest.

    `age_s`: seconds since it was posted; `prompt`: of the rollout that waits for it; `state`: in words;
    `stuck`: None when unknown.
    """

    request_id: str
    tool: str
    age_s: float
    rollout: str
    prompt: str
    state: str
    stuck: bool | None


class Status(BaseModel):
    """Where a run stands.

    - `quiet_s`: seconds since the run wrote its last line; `left_s`: estimated seconds to its end.
    - `evaluation`: the last evaluation of the test files that has ended.
    - `masked`: samples so far, as `Progress.masked`.
    - `waiting`: None while the trainer trains. `queues`: None without Redis.
    - `paused`: the providers, in words, for which admission is paused; `down`: those with an open circuit.
    - `advisories`: kinds of requests that masked too many samples by answers that a retry does not fix.
    - `masking_answers`: count of each such answer, by kind.

    Idle times are those of `Summary`.
    """

    name: str
    ended: bool
    quiet_s: float
    step: int
    steps: int | None
    left_s: float | None
    reward: float | None
    evaluation: Evaluated | None
    trainer_idle_ratio: float | None
    trainer_idle_s: dict[str, float]
    generator_idle_ratio: float | None
    generator_idle_s: dict[str, float]
    masked: dict[str, int]
    waiting: Waiting | None
    paused: list[str]
    down: list[str]
    advisories: list[str]
    masking_answers: dict[str, dict[str, int]]
    queues: dict[str, dict[str, int]] | None
    longest_pending: Pending | None


def read_status(run: Path) -> Status:
    """Read the status of the run in this folder. Raises `ConfigError` when there is no run."""
    evaluation = (run / "batch.json").is_file()
    if not (run / CONFIG_FILE).is_file() or (evaluation and not (run / LEDGER).is_dir()):
        hint = "; of an evaluation see `llmi evaluate status`" if evaluation else ""
        raise ConfigError(
            f"{run}: no run has started there; name a run's folder, or its name under --dir{hint}"
        )
    config = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
    ended, now = (run / SUMMARY).exists(), time.time()
    steps = config.get("sft" if (run / EXAMPLES).is_file() else "train", {}).get("steps")
    progress = _progress(run, steps, ended)
    queue = QueueSettings.model_validate(config.get("queue", {}))
    url = "" if ended else redis_url(run, queue)
    longest = None
    if not ended and (pending := progress.idle_tracker.pending(now)):
        longest = _longest(pending[0], progress, url, queue)
    return Status(
        name=config.get("name") or run.name,
        ended=ended,
        quiet_s=round(now - _last_written(run), 1),
        step=progress.steps,
        steps=steps,
        left_s=None if ended or progress.left_s is None else round(progress.left_s, 1),
        reward=progress.rewards[-1] if progress.rewards else None,
        evaluation=progress.evaluation,
        trainer_idle_ratio=progress.idle_ratio,
        trainer_idle_s=rounded(progress.idle.trainer),
        generator_idle_ratio=progress.idle.generator_ratio,
        generator_idle_s=rounded(progress.idle.generator),
        masked={cause: n for cause, n in progress.masked.most_common() if n},
        waiting=waiting(progress, RequestStatusPoller(progress, lambda: (url, queue)).describe),
        paused=list(progress.paused.providers) if progress.paused else [],
        down=_down(url),
        advisories=progress.masking_answers.advisories,
        masking_answers=progress.masking_answers.counts,
        queues=_queues(url),
        longest_pending=longest,
    )


def _progress(run: Path, steps: int | None, ended: bool) -> Progress:
    progress = Progress(run, steps)
    try:
        if ended:
            progress.conclude()
        else:
            progress.update()
    except ValidationError as error:
        raise ConfigError(
            f"{run / LEDGER}: was written by another version: {error.errors()[0]['msg']}"
        ) from error
    return progress


def waiting(progress: Progress, where: Callable[[str], str]) -> Waiting | None:
    """What the trainer waits for, by its last span. `where`: describes the request of an id."""
    spans = progress.waiting
    if not spans:
        return None
    last = spans[-1]
    return Waiting(
        cause=last.cause,
        seconds=round(sum(span.seconds for span in spans if span.cause == last.cause), 1),
        of_s=round(sum(span.seconds for span in spans), 1),
        request_id=last.request_id,
        state=where(last.request_id) if last.request_id else "",
    )


def in_words(wait: Waiting) -> str:
    """One line of text."""
    where = f", {wait.request_id} is {wait.state}" if wait.state else ""
    return f"{wait.cause} ({wait.seconds:.0f} of {wait.of_s:.0f} s){where}"


def _longest(record: RequestRecord, progress: Progress, url: str, queue: QueueSettings) -> Pending:
    where, kind = request_status(url, queue, record), record.request.kind
    rollout = progress.idle_tracker.owner(record)
    question = rollout.task.question if rollout and rollout.task else ""
    return Pending(
        request_id=record.request.request_id,
        tool=kind,
        age_s=round(time.time() - record.posted, 1),
        rollout=record.request.owner,
        prompt=question if len(question) <= SHOWN else f"{question[:SHOWN]}…",
        state=describe(where, progress.idle_tracker.median_s(kind), queue.lease_s, open_circuit(url, kind)),
        stuck=where.stuck if where else None,
    )


def redis_url(run: Path, queue: QueueSettings) -> str:
    """The URL of the run's Redis, with the password of the environment; empty before the run has one."""
    try:
        named = json.loads((run / ENDPOINTS).read_text(encoding="utf-8"))["redis"]
    except FileNotFoundError:
        return ""
    return queue.url if without_password(queue.url) == named else str(named)


def _down(url: str) -> list[str]:
    if not url:
        return []
    try:
        return [str(down) for down in read_breakers(url).outages]
    except redis.RedisError:
        return []


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
