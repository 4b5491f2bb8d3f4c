"""`llmi generate`: one document and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli.options import MAX_SEED, Json
from coordinator.cli.output import output, plain, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table


def generate(
    prompt: Annotated[str, typer.Option(help="What to write; <image> marks the place of an --image.")],
    image: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An input image; may be repeated.")
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="CONFIG",
            help="A YAML file with author and tools, the name of a shipped configuration, or a run's "
            "config.json \\[default: tiny models built on this machine].",
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The author: a model folder, a checkpoint as RUN@STEP, RUN@last or RUN@best, a hub id, or "
            "its name at the endpoint.",
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The HTML page to write \\[default: the prompt and the time]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the text and the generated images.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Write one document as an HTML page that shows the source of every image.

    Without [b]--config[/b] the models are tiny and built on this machine, as for [b]llmi demo[/b]. The tiny
    author answers prompts of its own kind, such as

        llmi generate --prompt "Write photos of landmarks in Kyoto. Use images."

    and writes nonsense about everything else. A real author is named by [b]--model[/b] (loaded in this
    process), by LLMI_AUTHOR_BASE_URL with [b]--model[/b] (an OpenAI-compatible endpoint), or in the section
    [b]author[/b] of [b]--config[/b], which names real tools too.

    Uses the workers of the Redis in LLMI_REDIS_URL when all tools are served there. Otherwise it starts
    workers and stops them at the end.
    """
    with output(as_json) as (console, result):
        from coordinator.generate import GenerateOptions, prepare, summary
        from coordinator.generate import generate as write
        from coordinator.host.signals import StopSignals

        page = out or Path(f"{stamp(' '.join(prompt.split()[:8]))}.html")
        options = GenerateOptions(prompt, tuple(image or ()), page, seed, config, model)
        progress = make_console(stderr=True)
        with StopSignals() as signals:
            prepared = prepare(options, progress)
            with Stages(progress) as stages:
                document = write(prepared, signals, stages.step)
        result.update(summary(document, page))
        _show(console, result)


def _show(console: Console, result: dict[str, Any]) -> None:
    if result["images"]:
        table = Table(box=None, pad_edge=False)
        for name in ("image", "tool", "outcome", "seconds"):
            table.add_column(name, justify="right" if name == "seconds" else "left")
        for row in result["images"]:
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
            table.add_row(row["image"], row["tool"], _outcome(row), seconds)
        print_table(console, table)
    cut = ", cut off by its token limit" if result["truncated"] else ""
    print_line(console, f"[bold green]done[/]: {result['seconds']:.1f} s{cut}; see [bold]{result['page']}[/]")


def _outcome(row: dict[str, Any]) -> str:
    if row["fault"] is None:
        return "ok"
    return f"{row['outcome'].replace('_', ' ')} ({row['fault']}): {plain(row['detail'])}"
