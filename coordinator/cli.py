"""The `llmi` command: reads arguments, calls what does the work, turns errors into messages and exit codes.

Invariants: with --json, stdout is one JSON object and nothing else; progress goes to stderr in any case;
exit code 2 means wrong input (nothing was started), 1 a run that failed, 128 + n a signal. Starts fast: no
heavy import up here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from workers.errors import ConfigError, InfrastructureFault

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trains language models to write illustrated documents: GRPO with tools and judges behind a queue.",
)
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]


class Model(StrEnum):
    text = "text"
    vl = "vl"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmi {version('llmi')}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; without it 24.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Repeats prompts, start weights and sampling order.")] = 1,
    model: Annotated[
        Model, typer.Option(help="A tiny Qwen3, or a tiny Qwen2.5-VL that sees images.")
    ] = Model.text,
    name: Annotated[str, typer.Option(help="Name of the run \\[default: demo and the time].")] = "",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run the main job for real on this machine: no GPU, no key and no network needed.

    Builds a tiny policy, tiny image models, an image library and prompts (once; cached in [b].cache[/b] of
    the working directory, or in LLMI_CACHE), starts Redis, the workers, Ray and the trainer, and leaves
    everything in [b]runs/NAME[/b]: open its index.html.
    """
    with _output(as_json) as (console, result):
        from coordinator.demo import demo as run

        config, summary = run(model.value, name or _stamp("demo"), seed, steps, runs, Console(stderr=True))
        result.update(summary.model_dump(mode="json"))
        _conclude(console, runs / config.name, result)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped configuration.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Resolve, check and print everything; start nothing.")
    ] = False,
    name: Annotated[
        str, typer.Option(help="Name of the run \\[default: the config's, or file and time].")
    ] = "",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train as a configuration says, on this machine or on the Ray cluster that RAY_ADDRESS names.

    Outside services are named by environment variables (SERP_API_KEY, QWEN_IMAGE_SERVER_URL,
    QWEN_EDIT_SERVER_URL, ARK_API_KEY, LLM_JUDGE_BASE_URL, MLLM_JUDGE_BASE_URL, LLMI_REDIS_URL).
    """
    with _output(as_json) as (console, result):
        from coordinator.config import find, load

        settings = load(config)
        chosen = name or settings.name or _stamp(find(config).stem)
        settings = load(config, {"name": chosen})
        if dry_run:
            from coordinator.dry_run import resolve

            result.update(resolve(settings, runs, console))
            return
        from coordinator.launch import launch
        from coordinator.processes import MemoryWatch
        from coordinator.signals import StopSignals

        began = time.monotonic()
        with StopSignals() as signals, MemoryWatch() as memory:
            summary = launch(settings, runs, Console(stderr=True), signals, memory, began)
        result.update(summary.model_dump(mode="json"))
        _conclude(console, runs / chosen, result)


def main() -> None:
    """Entry point of the `llmi` command."""
    from coordinator.signals import Stopped

    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    try:
        app()
    except ConfigError as error:
        _fail(console, str(error), 2)
    except Stopped as stop:
        _fail(console, f"stopped by {stop}; nothing it started is left", stop.exit_code)
    except (InfrastructureFault, RuntimeError, OSError) as error:
        _fail(console, str(error), 1)


@contextlib.contextmanager
def _output(as_json: bool) -> Iterator[tuple[Console, dict[str, Any]]]:
    """A console, and a mapping that is printed as the one line on stdout when JSON is asked for.

    Until then stdout is stderr, for every library and child process that might write to it.
    """
    result: dict[str, Any] = {}
    if not as_json:
        yield Console(), result
        return
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        yield Console(stderr=True), result
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)
    typer.echo(json.dumps(result, ensure_ascii=False))


def _conclude(console: Console, run: Path, result: dict[str, Any]) -> None:
    first, last = result["reward_first"], result["reward_last"]
    rise = f"reward {first:.3f} → {last:.3f}, " if first is not None and last is not None else ""
    console.print(
        f"[bold green]done[/]: {result['steps']} steps, {rise}{result['requests_posted']:,} requests, "
        f"{result['lost']} lost, {result['masked']} masked; see [bold]{run / 'index.html'}[/]",
        highlight=False,
        soft_wrap=True,
    )


def _stamp(prefix: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", prefix).strip("._-") or "run"
    return f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def _fail(console: Console, message: str, code: int) -> NoReturn:
    console.print("[bold red]llmi: error[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
