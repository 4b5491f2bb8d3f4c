"""Resuming a run that died in its folder: from which checkpoint, with which requests, and what may change.

Invariants:
- Nothing is written before all problems are ruled out and no process of the run is left.
- The step from which the run resumes is written to the ledger first.
- A resume that is killed at any moment can be repeated.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.settings import AGAIN_FILE, RunConfig, load
from policy.ledger.entries import (
    ENTRY,
    LEDGER,
    Abandoned,
    Entry,
    Finished,
    RequestEnded,
    Resumed,
    RolloutEnded,
)
from policy.ledger.merge import merge
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumeDecision, plan_resume
from policy.settings import METRICS, PAST_METRICS
from policy.sft.settings import EXAMPLES
from policy.train.kept_checkpoints import resumable
from workers.broker.outcomes import commit
from workers.errors import Cause, ConfigError
from workers.messages import Outcome, Request
from workers.redis_client import connect_redis
from workers.settings import QueueSettings
from workers.storage.atomic import save

COORDINATOR = "coordinator"
CLOCK_SKEW_S = 2.0  # the clocks of a cluster differ by less
EXIT_WAIT_S = 30.0  # for the processes of a killed run, which end within seconds
# Sections and fields that may differ in a resumed run: where and how fast it runs, not what it produces.
MAY_CHANGE = (
    "workers", "ray", "metrics", "queue", "train.steps", "train.epochs", "train.save_every",
    "train.keep_checkpoints", "train.poll_s", "train.evaluate_every", "train.evaluate_timeout_s",
    "train.evaluate_prompts",
    "train.admission", "train.warmup_batches", "train.weight_sync_timeout_s", "train.rollout_timeout_s",
    "train.rollout_processes", "train.rollout_seqs", "train.rollout_batched_tokens", "train.kv_cache_gib",
    "train.gpu_memory", "train.weight_bucket_mb",
)  # fmt: skip


@dataclass(frozen=True)
class StartPoint:
    """Where a run starts: at step 0, or after `step` of a run that died.

    `orphans`: requests of the dead run that no rollout waits for.
    """

    resumed: bool = False
    step: int = 0
    orphans: tuple[Request, ...] = ()


def recorded(run: Path) -> RunConfig:
    """The configuration with which the run was started. Raises `ConfigError` for a folder without a run."""
    if not (run / AGAIN_FILE).is_file():
        raise ConfigError(f"{run}: there is no run to resume; name another by --name or --dir")
    return load(run / AGAIN_FILE)


def problems(config: RunConfig, run: Path) -> list[str]:
    """Why the run cannot be resumed with this configuration."""
    try:
        before = recorded(run)
    except ConfigError as error:
        return [str(error)]
    if finished(run):
        return [f"{run}: this run is finished; there is nothing to resume"]
    if (run / EXAMPLES).is_file():
        return [f"{run}: is a run of llmi sft; resume it with llmi sft --resume, or name another"]
    return changed(config, before, (*MAY_CHANGE, "sft"))


def changed(config: RunConfig, before: RunConfig, may_change: Sequence[str]) -> list[str]:
    """Fields and sections that differ in a resumed run, but for those that `may_change`."""
    old, new = (dict(_fields(c.model_dump(mode="json"))) for c in (before, config))
    return [
        f"{name}: is {new.get(name)!r}, and the run was started with {old.get(name)!r}; set that again, or "
        "start another run"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _within(name, may_change)
    ]


def prepare(config: RunConfig, run: Path) -> StartPoint:
    """Make the run's folder ready to resume. Call it while no process of the run is alive.

    Raises `ConfigError` for a ledger that cannot be read.
    """
    try:
        ledger = read_ledger(run)
    except ValueError as error:
        raise ConfigError(f"{error}; fix or remove that line to resume the run") from error
    now = time.time()
    if ledger.last > now + CLOCK_SKEW_S:
        raise ConfigError(
            f"{run}: its ledger ends {ledger.last - now:.0f} s in the future; this machine's clock is wrong, "
            "or was: correct it to resume the run"
        )
    step = last_checkpoint(ledger, run)
    entry = Resumed(time=max(now, math.nextafter(ledger.last, math.inf)), step=step)
    merge(ledger, entry)
    allowed = 1 if config.train.mode == "sync" else config.train.max_staleness
    texts, same = CompletionStore(run), not config.train.curriculum.enable
    decided = plan_resume(ledger, texts.load, allowed=allowed, same_prompts=same)
    writer = LedgerWriter(run, COORDINATOR)
    try:
        writer.append(entry)
        for decision in entries(decided, entry.time):
            writer.append(decision)
    finally:
        writer.close()
    texts.forget(set(decided.forgotten))
    cut_metrics(run, step)
    for name, continued in decided.continued.items():
        continued.save(run, name)
    decided.plan.save(run)
    return StartPoint(resumed=True, step=step, orphans=decided.orphans)


def last_checkpoint(ledger: Ledger, run: Path) -> int:
    """The last step with a whole checkpoint; 0 for none."""
    for step in reversed(ledger.checkpoints):
        if resumable(run, step):
            return step
    return 0


def cancel(queue: QueueSettings, orphans: Sequence[Request]) -> None:
    """Store a cancelled outcome for each, so that no worker starts it. Raises `redis.RedisError`."""
    if orphans:
        with connect_redis(queue.url) as client:
            for request in orphans:
                commit(client, _cancelled(request), "", queue.result_ttl_s)


def entries(decided: ResumeDecision, now: float) -> list[Entry]:
    """The ledger entries of a plan, after `Resumed`."""
    return [
        *(Abandoned(time=now, rollout_id=name, reason=why) for name, why in decided.abandoned.items()),
        *(
            RolloutEnded(time=now, rollout_id=name, state="masked", reason=why)
            for name, why in decided.masked.items()
        ),
        *(RequestEnded(time=now, outcome=_cancelled(request)) for request in decided.orphans),
    ]


def _cancelled(request: Request) -> Outcome:
    return Outcome.failed(request, Cause.CANCELLED, "the run was resumed without its rollout")


def cut_metrics(run: Path, step: float) -> None:
    """Keep the metrics of the steps that the checkpoint holds. verl overwrites its file;
    `policy.train.trainer` restores the kept lines.
    """
    rows: dict[float, list[str]] = {}
    for name in (PAST_METRICS, METRICS):
        path = run / name
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        found: dict[float, list[str]] = {}
        for line in lines:
            if (at := _step(line)) <= step:
                found.setdefault(at, []).append(line)  # the last step may have several
        rows.update(found)
    text = "".join(f"{line}\n" for at in sorted(rows) for line in rows[at])
    for name in (PAST_METRICS, METRICS):
        save(run / name, text)


def _step(line: str) -> float:
    """The step of a line of metrics; infinite for a line that was cut off when the machine died."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return math.inf


def finished(run: Path) -> bool:
    """Whether the last state that its coordinators recorded is finished."""
    written: list[Entry] = []
    for path in (run / LEDGER).glob(f"{COORDINATOR}-*.jsonl"):
        lines = path.read_bytes().split(b"\n")[:-1]
        written += [ENTRY.validate_json(line) for line in lines]
    turns = [entry for entry in written if isinstance(entry, Finished | Resumed)]
    return bool(turns) and isinstance(max(turns, key=lambda entry: entry.time), Finished)


def _fields(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names of all values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _within(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
