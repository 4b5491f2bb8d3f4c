"""`llmi demo` and `llmi evaluate demo`: a GRPO run and an evaluation on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coordinator.cli.commands.evaluate import show_report, show_status
from coordinator.cli.commands.train import Resume, conclude, exit_without_report, required_name
from coordinator.cli.options import MAX_SEED, Json, Runs
from coordinator.cli.output import output, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console


def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps \\[default: 24].")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of prompts, start weights and sampling order.")
    ] = 1,
    model: Annotated[
        Literal["text", "vl"], typer.Option(help="A tiny Qwen3, or a tiny Qwen2.5-VL that sees images.")
    ] = "text",
    name: Annotated[str, typer.Option(help="Name of the run \\[default: demo and the time].")] = "",
    resume: Resume = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train tiny models with GRPO on this machine: no GPU, no key and no network needed.

    Builds a tiny policy, tiny image models, an image library and prompts (once; cached in [b].cache[/b] of
    the working directory, or in LLMI_CACHE), starts Redis, the workers, Ray and the trainer, and leaves
    everything in [b]runs/NAME[/b]: open its index.html.
    """
    with output(as_json) as (console, result):
        from llmi.demo.run import demo as run
        from llmi.demo.run import resume_demo

        errors = make_console(stderr=True)
        if resume:
            config, summary = resume_demo(required_name(name), steps, runs, errors)
        else:
            config, summary = run(model, name or stamp("demo"), seed, steps, runs, errors)
        result.update(summary.model_dump(mode="json"))
        conclude(console, runs / config.name, result)
    exit_without_report(result)


def evaluate_demo(
    name: Annotated[str, typer.Option(help="Name of the evaluation.")] = "demo",
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder that holds the evaluations.")
    ] = Path("evals"),
    as_json: Json = False,
) -> None:
    """Evaluate a tiny model on this machine: no GPU, no key and no network needed.

    Builds a tiny vision-language author, tiny image models and a drawn library (once; shared with
    [b]llmi demo[/b]), starts Redis and workers for as long as it takes, and evaluates six items of a small
    benchmark by rules. The same name again continues where it stopped.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.demo.evaluation import demo as run

        progress = make_console(stderr=True)
        with StopSignals() as signals, Stages(progress) as stages:
            page, numbers = run(
                name, folder, signals, progress, stages.notify, lambda now: show_status(stages, now)
            )
        result.update(numbers, page=page)
        show_report(console, numbers, page)
