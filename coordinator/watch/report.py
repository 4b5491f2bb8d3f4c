"""The report of a run: summary.json, reward.png and index.html.

Invariant: written from the run's folder alone, so that `rebuild` can write it again at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from coordinator.config.settings import CONFIG_FILE, RunConfig
from coordinator.console.stages import duration
from coordinator.watch import documents, evaluations, off_policy, trackers
from coordinator.watch.evaluations import Evaluated
from coordinator.watch.masks import list_masked
from coordinator.watch.report_masked import examples, masked_note, masked_tables
from coordinator.watch.summary import SUMMARY, Summary, lost_requests, read_metrics, summarize
from coordinator.watch.why import ledger_of
from evaluation.pages.curve import Point, draw
from evaluation.pages.run_page import KeyFigure, Page, Table, write
from evaluation.pages.samples import Sample, pairs
from policy.ledger.reader import reward_curve
from policy.ledger.records import Ledger
from policy.settings import METRICS
from workers.errors import ConfigError
from workers.storage.blobs import BlobStore

GIB = 1024**3
CAUSES_SHOWN = 4
REPORT = "index.html"


def write_report(run: Path, config: RunConfig, ledger: Ledger, summary: Summary) -> Path:
    """Write the three files into `run`; returns the page's path. Without any step there is no curve."""
    (run / SUMMARY).write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return write_page(run, config, ledger, summary)


def rebuild(run: Path) -> tuple[Path, Summary]:
    """Write the page of a run again; returns its path and the numbers.

    What only the run's own process knew (restarts, memory, duration) is read from summary.json. A run without
    that file has not ended: its page shows it so far, and summary.json is not written. Raises `ConfigError`
    for a folder without a run, or with one of another version.
    """
    ledger = ledger_of(run)
    try:
        config = RunConfig.model_validate_json((run / CONFIG_FILE).read_bytes())
        ended = (
            Summary.model_validate_json((run / SUMMARY).read_bytes()) if (run / SUMMARY).exists() else None
        )
    except ValidationError as error:
        what = error.errors()[0]
        raise ConfigError(
            f"{run}: written by another version of llmi: {'.'.join(map(str, what['loc']))}: {what['msg']}"
        ) from error
    starts = [rollout.started for rollout in ledger.rollouts.values() if rollout.started]
    summary = summarize(
        ledger,
        read_metrics(run / METRICS),
        name=config.name,
        seed=config.train.seed,
        lost=ended.lost if ended else len(lost_requests(ledger, time.time())),
        worker_restarts=ended.worker_restarts if ended else 0,
        peak_rss_bytes=ended.peak_rss_bytes if ended else 0,
        seconds=ended.seconds if ended else ledger.last - min(starts, default=ledger.last),
    )
    return (write_report if ended else write_page)(run, config, ledger, summary), summary


def write_page(run: Path, config: RunConfig, ledger: Ledger, summary: Summary) -> Path:
    """Write reward.png and index.html into `run`; returns the page's path."""
    steps, metrics = points(ledger, summary), read_metrics(run / METRICS)
    evaluated = evaluations.read(run / METRICS)
    curve = (
        draw(steps, run / "reward.png", evaluated=evaluations.points(evaluated)).read_bytes()
        if steps
        else None
    )
    page = Page(
        title=summary.name,
        lead=lead(config, summary),
        figures=figures(summary, evaluated),
        pairs=pairs(samples(ledger)),
        curve=curve,
        tables=[
            *tables(summary),
            *evaluations.tables(evaluated),
            *documents.tables(metrics),
            *off_policy.tables(metrics),
            *masked_tables(list_masked(ledger, summary.name), summary),
        ],
        notes=[*notes(config), *trackers.notes(metrics)],
        masked=examples(ledger, summary.name),
    )
    return write(run / REPORT, page, BlobStore(config.blobs.url))


def points(ledger: Ledger, summary: Summary) -> list[Point]:
    """The steps of the curve: those with a reward, and those with masked or dropped samples."""
    rewards, masked, dropped = reward_curve(ledger), summary.masked_by_step, summary.dropped_by_step
    return [
        Point(step, rewards.get(step), masked.get(step, 0), dropped.get(step, 0))
        for step in sorted({*rewards, *masked, *dropped} - {0})
    ]


def samples(ledger: Ledger) -> list[Sample]:
    """The documents that were trained on, by step."""
    found = [
        Sample(
            document=rollout.document,
            step=rollout.step,
            reward=rollout.score.reward,
            breakdown=rollout.score.breakdown,
            state=rollout.state,
            masked_by=rollout.score.masked_by,
        )
        for rollout in ledger.rollouts.values()
        if rollout.state == "trained" and rollout.document and rollout.score
    ]
    return sorted(found, key=lambda sample: (sample.step, sample.document.rollout_id))


def lead(config: RunConfig, summary: Summary) -> str:
    train = config.train
    where = "on a CPU" if train.device == "cpu" else f"on {train.gpus} GPUs"
    return (
        f"{Path(train.model).name}, {train.loss.upper()}, {summary.steps} steps of {train.batch_size} "
        f"prompts with {train.n} rollouts each, {where}, seed {summary.seed}."
    )


def figures(summary: Summary, evaluated: list[Evaluated]) -> list[KeyFigure]:
    def number(value: float | None, form: str) -> str:
        return "none" if value is None else format(value, form)

    reward = f"{number(summary.reward_first, '.2f')} → {number(summary.reward_last, '.2f')}"
    return [
        KeyFigure("Reward", reward, "first and last fifth of the steps"),
        *(
            KeyFigure("Evaluation", one.reward_words, f"test files, version {one.version}, 95 % interval")
            for one in evaluated[-1:]
        ),
        KeyFigure("Requests", f"{summary.requests_posted:,}", "to tools and judges"),
        KeyFigure("Lost", f"{summary.lost:,}", "requests without an outcome"),
        KeyFigure("Masked", f"{summary.masked:,}", masked_note(summary)),
        KeyFigure("Trainer idle", number(summary.trainer_idle_ratio, ".1%"), "waiting for samples"),
        KeyFigure("Memory", f"{summary.peak_rss_bytes / GIB:.1f} GiB", "peak, all processes"),
        KeyFigure("Time", duration(summary.seconds), "start to end"),
    ]


def tables(summary: Summary) -> list[Table]:
    kinds = Table(
        "Requests",
        ["kind", "posted", "success", "model", "infrastructure"],
        [
            [kind.replace("_", " "), *(f"{n:,}" for n in (c.posted, c.success, c.model, c.infrastructure))]
            for kind, c in summary.by_tool.items()
        ],
    )
    ended = sorted(summary.outcomes.items(), key=lambda item: -item[1])
    outcomes = Table("Outcomes", ["outcome", "count"], [[k.replace("_", " "), f"{v:,}"] for k, v in ended])
    states = dict(summary.rollouts)
    if states.pop("masked", 0):
        states["masked by infrastructure"] = summary.masked
        states["dropped with its group"] = summary.dropped_with_group
    rollouts = Table("Rollouts", ["state", "count"], [[k, f"{v:,}"] for k, v in states.items() if v])
    idle = {"trainer": summary.trainer_idle_s, "generator": summary.generator_idle_s}
    waits = Table(
        "Idle time",
        ["who", "waited for", "seconds"],
        [
            [who, cause.replace("_", " "), f"{s:,.1f}"]
            for who, causes in idle.items()
            for cause, s in largest(causes).items()
        ],
    )
    return [table for table in (kinds, outcomes, rollouts, waits) if table.rows]


def largest(causes: Mapping[str, float]) -> dict[str, float]:
    """The `CAUSES_SHOWN` largest causes, and the sum of the others; summary.json has all."""
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    rest = sum(seconds for _, seconds in ordered[CAUSES_SHOWN:])
    return dict(ordered[:CAUSES_SHOWN]) | ({"everything else": rest} if rest else {})


def notes(config: RunConfig) -> list[str]:
    """What a reader must know about the scores and images."""
    found = [f"Reward formula: {config.reward.formula}."]
    if "rules" in (config.judges.text.provider, config.judges.image.provider):
        found.append("Scores come from the rule-based judge; no judge model is configured.")
    if config.train.device == "cpu" and config.tools.diffusion.provider == "diffusers":
        found.append("Generated images come from tiny weights trained for seconds.")
    return found
