"""`llmi generate`: one document and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli.commands.output import MAX_SEED, Json, output, plain, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_table


def generate(
    prompt: Annotated[
        str, typer.Option(help="What the document should be about; <image> stands for an image given.")
    ],
    image: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An image to write about; may be repeated.")
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A YAML file with author and tools, a shipped one, or a run's config.json."
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="FOLDER_OR_ID", help="The author: a model folder, a hub id, or its name at the endpoint."
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page to write \\[default: the prompt and the time]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Repeats the text and the generated images.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Write one document, and show it as one HTML page.

    Under each image stands where it comes from: page, prompt and seed, or code.

    Without [b]--config[/b] everything is tiny and built on this machine, as for
    [b]llmi demo[/b]: image models, a drawn picture library, and an author that knows
    a few dozen sentences. It answers prompts of its own kind, such as

        llmi generate --prompt "Write photos of landmarks in Kyoto. Use images."

    and writes nonsense about all else. Name a real author by [b]--model[/b] (it is
    loaded in this process), by LLMI_AUTHOR_BASE_URL and its name there (any
    OpenAI-compatible endpoint), or in the section [b]author[/b] of a [b]--config[/b],
    which names real tools too.

    Workers that are alive on the Redis of LLMI_REDIS_URL are used; else they are
    started for this document and stopped after it.
    """
    with output(as_json) as (console, result):
        from coordinator.generate import Order, prepare, summary
        from coordinator.generate import generate as write
        from coordinator.host.signals import StopSignals

        page = out or Path(f"{stamp(' '.join(prompt.split()[:8]))}.html")
        order = Order(prompt, tuple(image or ()), page, seed, config, model)
        progress = make_console(stderr=True)
        with StopSignals() as signals:
            prepared = prepare(order, progress)
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
    console.print(
        f"[bold green]done[/]: {result['seconds']:.1f} s{cut}; see [bold]{result['page']}[/]",
        highlight=False,
        soft_wrap=True,
    )


def _outcome(row: dict[str, Any]) -> str:
    if row["fault"] is None:
        return "ok"
    whose = "the author's fault" if row["fault"] == "model" else "not the author's fault"
    return f"{row['outcome'].replace('_', ' ')} ({whose}): {plain(row['detail'])}"
