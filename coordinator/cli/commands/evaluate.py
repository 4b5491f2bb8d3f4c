"""`llmi evaluate`: post a benchmark to the queues, show its progress, write its report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output, stamp
from coordinator.console.stages import Stages, image_progress
from coordinator.console.terminal import make_console, notifier, print_line

if TYPE_CHECKING:
    from evaluation.batch.progress import Evaluation, Status

app = typer.Typer(no_args_is_help=True, help="Evaluate a model on a benchmark, through the queues.")
WATCH_S = 1.0

Folder = Annotated[
    str,
    typer.Option(
        "--dir", metavar="DIR", help="Folder or URL that holds the evaluations; workers must reach it."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the evaluation.")]


@app.command()
def submit(
    bench: Annotated[
        Path,
        typer.Argument(
            metavar="BENCH",
            help=".json or .jsonl: LLMI-Bench's format; each criterion judged 0, 1 or 2. .parquet: prompts "
            "in the LLM-I schema; each document gets the training reward.",
        ),
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="CONFIG",
            help="A YAML file, or the name of a shipped configuration \\[default: the one that the workers "
            "published in the Redis of LLMI_REDIS_URL].",
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The author, instead of author.model: a model folder, a checkpoint as RUN@STEP, a hub id, "
            "or its name at the endpoint.",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="Name of the evaluation \\[default: the file's and the time].")
    ] = "",
    folder: Folder = "evals",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items.")] = None,
    format_name: Annotated[
        str, typer.Option("--format", help="Format of the file \\[default: by its name and content].")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check everything, post all items and return. Workers do the rest, even when some of them die.

    With a name that exists, posts only items that failed, and missing verdicts of documents that are written.
    """
    with output(as_json) as (console, result):
        from coordinator.config import paths
        from coordinator.export.author import with_checkpoint
        from coordinator.host.signals import StopSignals
        from coordinator.state.published import service_config
        from evaluation.batch import submission

        settings = service_config(config)
        author = settings.author
        author = author.model_copy(update={"model": paths.model(model)}) if model else author
        with StopSignals(), Stages(make_console(stderr=True)) as stages:
            settings = settings.model_copy(update={"author": with_checkpoint(author, stages.step)})
            stages.step("checking the benchmark and posting its items")
            evaluation, posted = submission.submit(
                settings,
                bench,
                name or stamp(bench.stem),
                folder,
                limit,
                stages.notify,
                image_progress(stages.step),
                format_name,
            )
        status = evaluation.poll()
        result.update(status.as_dict(), posted=len(posted), batch=evaluation.batch.url)
        print_line(
            console,
            f"[bold green]posted[/] {len(posted)} of {status.items} items; {status.complete} are complete. "
            f"See [bold]llmi evaluate status {status.name} --watch[/]",
        )


@app.command()
def status(
    name: Name,
    folder: Folder = "evals",
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh until no item is queued or running.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count complete, queued and running items, and repost lost ones."""
    with output(as_json) as (console, result):
        evaluation = _find(name, folder)
        now = evaluation.poll_confirmed(notifier(console))
        if watch and now.in_progress:
            with Stages(make_console(stderr=True)) as stages:
                now = _watch(evaluation, now, stages)
        result.update(now.as_dict())
        _show(console, now)


@app.command()
def report(name: Name, folder: Folder = "evals", as_json: Json = False) -> None:
    """Write report.html, which shows every document, and report.json."""
    with output(as_json) as (console, result):
        from evaluation.batch.batch import Batch
        from evaluation.pages import evaluation_page as writer

        with Stages(make_console(stderr=True)) as stages:
            stages.step("writing the report, with every document and its images")
            page, numbers_file, numbers = writer.write(Batch(_url(name, folder)))
        result.update(numbers, page=page, numbers=numbers_file)
        show_report(console, numbers, page)


def _url(name: str, folder: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _find(name: str, folder: str) -> Evaluation:
    from evaluation.batch.batch import Batch
    from evaluation.batch.progress import Evaluation

    return Evaluation(Batch(_url(name, folder)))


def _watch(evaluation: Evaluation, now: Status, stages: Stages) -> Status:
    """Show the progress until no item is queued or running."""
    while True:
        show_status(stages, now)
        if not now.in_progress:
            return now
        time.sleep(WATCH_S)
        now = evaluation.poll()


def show_status(stages: Stages, now: Status) -> None:
    """Show the progress as the share of verdicts, which arrive one by one; an item takes minutes."""
    ended = now.complete + now.incomplete
    share = now.judged / now.criteria if now.criteria else ended / max(1, now.items)
    share = share if now.in_progress else 1.0
    words = f"{now.complete} of {now.items} items complete, {now.judged} of {now.criteria} judged"
    stages.step(now.name, share, words + _counts(now, "running", "queued", "lost", "incomplete"))


def _counts(now: Status, *places: str) -> str:
    return "".join(f", {count} {place}" for place in places if (count := getattr(now, place)))


def show_report(console: Console, numbers: dict[str, Any], page: str) -> None:
    """Print the score of a finished evaluation and the page of its report."""
    score = numbers["score"]
    value = "nothing was judged" if score["value"] is None else f"score {score['value']:.2f}"
    if score["low"] is not None:
        value += f" (95 % interval {score['low']:.2f} to {score['high']:.2f})"
    refused = numbers["refused"]["points"]
    judged = f"{score['judged']} of {score['of']} judged" + (
        f", {refused} of them refused" if refused else ""
    )
    print_line(console, f"[bold]{value}[/], {judged}; see [bold]{page}[/]")


def _show(console: Console, now: Status) -> None:
    rest = _counts(now, "incomplete", "running", "queued", "lost")
    words = f"{now.complete} of {now.items} items complete{rest}, {now.judged} of {now.criteria} judged"
    print_line(console, f"[bold]{now.name}[/]: {words}")
    if now.refused:
        print_line(console, f"refused, and counted as 0: {now.refused}")
    if now.failures:
        causes = ", ".join(f"{cause} {count}" for cause, count in now.failures.items())
        print_line(console, f"missing, by cause: {causes}")
    if now.incomplete and not now.in_progress:
        print_line(console, "submit it again with the same name to do what is missing")
