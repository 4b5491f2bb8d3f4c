"""`llmi train`: launch a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.options import Json, Runs, complete_config
from coordinator.cli.output import output, stamp
from coordinator.console.terminal import make_console, print_line

if TYPE_CHECKING:
    from coordinator.config.settings import RunConfig

Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the run of this name, which died or was stopped.")
]


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or the name of a shipped configuration.",
            autocompletion=complete_config,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Override a key, such as train.lr=1e-6. The value is YAML."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Resolve, check and print everything; start nothing. Exit code 1 for a problem.",
        ),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Run two steps on this machine's CPUs, with a tiny model, local tools and local judges.",
        ),
    ] = False,
    name: Annotated[
        str, typer.Option(help="Name of the run \\[default: the config's, or file and time].")
    ] = "",
    resume: Resume = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train with a configuration, on this machine or on the Ray cluster of RAY_ADDRESS.

    Addresses and keys of services come from the environment: SERP_API_KEY, QWEN_IMAGE_SERVER_URL,
    QWEN_EDIT_SERVER_URL, ARK_API_KEY, LLM_JUDGE_BASE_URL, MLLM_JUDGE_BASE_URL, LLMI_REDIS_URL.
    Trackers (train.trackers) have their own, such as WANDB_API_KEY, SWANLAB_API_KEY, MLFLOW_TRACKING_URI.
    """
    with output(as_json) as (console, result):
        from coordinator.config import overrides as override
        from coordinator.config.files import find
        from coordinator.config.settings import load
        from workers.errors import ConfigError

        if rehearse and (dry_run or resume):
            raise ConfigError("--rehearse: goes with neither --dry-run nor --resume; leave those out")
        changes = override.parse(overrides or ())
        settings = load(config, changes)
        if rehearse:  # beside the run, which may have the configured name
            chosen = name or stamp(f"rehearsal-{find(config).stem}")
        else:
            chosen = name or settings.name or (required_name("") if resume else stamp(find(config).stem))
        settings = load(config, {**changes, "name": chosen})
        if dry_run:
            from coordinator.check.dry_run import resolve

            result.update(resolve(settings, runs, console, resume))
        elif rehearse:
            _rehearse(settings, runs, console, result)
        else:
            from coordinator.host.processes import MemoryWatch
            from coordinator.host.signals import StopSignals
            from coordinator.run.launch import launch

            began = time.monotonic()
            with StopSignals() as signals, MemoryWatch() as memory:
                summary = launch(settings, runs, make_console(stderr=True), signals, memory, began, resume)
            result.update(summary.model_dump(mode="json"))
            conclude(console, runs / chosen, result)
    if result.get("problems"):
        raise typer.Exit(1)
    exit_without_report(result)


def _rehearse(settings: RunConfig, runs: Path, console: Console, result: dict[str, Any]) -> None:
    """Rehearse, print the outcome, and put it into `result`."""
    from coordinator.host.processes import MemoryWatch
    from coordinator.host.signals import StopSignals
    from coordinator.rehearse.rehearse import rehearse

    began = time.monotonic()
    with StopSignals() as signals, MemoryWatch() as memory:
        done = rehearse(settings, runs, make_console(stderr=True), signals, memory, began)
    for option in done.left_out:
        print_line(console, f"not rehearsed: {option}", markup=False)
    result.update(done.summary.model_dump(mode="json"))
    result["not_rehearsed"] = [one.document() for one in done.left_out]
    conclude(console, runs / settings.name, result)


def required_name(name: str) -> str:
    """The name of the run to resume. Raises `ConfigError` if it is empty."""
    if not name:
        from workers.errors import ConfigError

        raise ConfigError("--resume: no run is named; give its --name")
    return name


def conclude(console: Console, run: Path, result: dict[str, Any]) -> None:
    """Print the summary of a finished run and the page of its report, and put that page into `result`."""
    page = run / "index.html"
    there = page.is_file() and page.stat().st_size > 0
    result["report"] = str(page) if there else None
    first, last = result["reward_first"], result["reward_last"]
    rise = f"reward {first:.3f} → {last:.3f}, " if first is not None and last is not None else ""
    see = f"see [bold]{page}[/]" if there else f"[bold red]no report[/], {page} could not be written"
    print_line(
        console,
        f"[bold green]done[/]: {result['steps']} steps, {rise}{result['requests_posted']:,} requests, "
        f"{result['lost']} lost, {_masked(run, result)}; {see}",
    )


def _masked(run: Path, result: dict[str, Any]) -> str:
    from coordinator.watch.masks import counts_in_words

    words = counts_in_words(result["masked"], result["masked_by_cause"], result["dropped_with_group"])
    return f"masked {words}" + (f" (see llmi why {run})" if result["masked"] else "")


def exit_without_report(result: dict[str, Any]) -> None:
    """Exit with code 1 if the run wrote no report."""
    if "report" in result and result["report"] is None:
        raise typer.Exit(1)
