"""`llmi demo` and `llmi train`: launch a run."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.commands.output import MAX_SEED, Json, Runs, output, stamp
from coordinator.console.terminal import make_console


class Model(StrEnum):
    text = "text"
    vl = "vl"


Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run of this name that died or was stopped.")
]


def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; without it 24.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Repeats prompts, start weights and sampling order.")
    ] = 1,
    model: Annotated[
        Model, typer.Option(help="A tiny Qwen3, or a tiny Qwen2.5-VL that sees images.")
    ] = Model.text,
    name: Annotated[str, typer.Option(help="Name of the run \\[default: demo and the time].")] = "",
    resume: Resume = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run the main job for real on this machine: no GPU, no key and no network needed.

    Builds a tiny policy, tiny image models, an image library and prompts (once; cached in [b].cache[/b] of
    the working directory, or in LLMI_CACHE), starts Redis, the workers, Ray and the trainer, and leaves
    everything in [b]runs/NAME[/b]: open its index.html.
    """
    with output(as_json) as (console, result):
        from llmi.demo.run import demo as run
        from llmi.demo.run import go_on

        errors = make_console(stderr=True)
        if resume:
            config, summary = go_on(_named(name), steps, runs, errors)
        else:
            config, summary = run(model.value, name or stamp("demo"), seed, steps, runs, errors)
        result.update(summary.model_dump(mode="json"))
        _conclude(console, runs / config.name, result)
    _end(result)


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped configuration.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Resolve, check and print everything; start nothing.")
    ] = False,
    name: Annotated[
        str, typer.Option(help="Name of the run \\[default: the config's, or file and time].")
    ] = "",
    resume: Resume = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train as a configuration says, on this machine or on the Ray cluster that RAY_ADDRESS names.

    Outside services are named by environment variables (SERP_API_KEY, QWEN_IMAGE_SERVER_URL,
    QWEN_EDIT_SERVER_URL, ARK_API_KEY, LLM_JUDGE_BASE_URL, MLLM_JUDGE_BASE_URL, LLMI_REDIS_URL).
    """
    with output(as_json) as (console, result):
        from coordinator.config.settings import find, load

        settings = load(config)
        chosen = name or settings.name or (_named("") if resume else stamp(find(config).stem))
        settings = load(config, {"name": chosen})
        if dry_run:
            from coordinator.check.dry_run import resolve

            result.update(resolve(settings, runs, console, resume))
            return
        from coordinator.host.processes import MemoryWatch
        from coordinator.host.signals import StopSignals
        from coordinator.run.launch import launch

        began = time.monotonic()
        with StopSignals() as signals, MemoryWatch() as memory:
            summary = launch(settings, runs, make_console(stderr=True), signals, memory, began, resume)
        result.update(summary.model_dump(mode="json"))
        _conclude(console, runs / chosen, result)
    _end(result)


def _named(name: str) -> str:
    """Raises `ConfigError` without a name: that of a new run holds the time."""
    if not name:
        from workers.errors import ConfigError

        raise ConfigError("--resume: which run? Name it by --name")
    return name


def _conclude(console: Console, run: Path, result: dict[str, Any]) -> None:
    """Print that the run is done, and where its report is, if it was written."""
    page = run / "index.html"
    there = page.is_file() and page.stat().st_size > 0
    result["report"] = str(page) if there else None
    first, last = result["reward_first"], result["reward_last"]
    rise = f"reward {first:.3f} → {last:.3f}, " if first is not None and last is not None else ""
    see = f"see [bold]{page}[/]" if there else f"[bold red]no report[/], {page} could not be written"
    console.print(
        f"[bold green]done[/]: {result['steps']} steps, {rise}{result['requests_posted']:,} requests, "
        f"{result['lost']} lost, {_masked(run, result)}; {see}",
        highlight=False,
        soft_wrap=True,
    )


def _masked(run: Path, result: dict[str, Any]) -> str:
    from coordinator.watch.masks import counts_in_words

    words = counts_in_words(result["masked"], result["masked_by_cause"], result["dropped_with_group"])
    return f"masked {words}" + (f" (see llmi why {run})" if result["masked"] else "")


def _end(result: dict[str, Any]) -> None:
    """Exit code 1 for a run that left no report."""
    if "report" in result and result["report"] is None:
        raise typer.Exit(1)
