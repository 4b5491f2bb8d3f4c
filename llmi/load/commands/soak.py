"""`llmi bench soak`: whether memory or open files grow under load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import MAX_SEED, Json
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table
from llmi.load.commands.output import new_folder

if TYPE_CHECKING:
    from llmi.load.soak.bench import Soak

MIB = 2**20
LINE_EVERY_S = 60.0  # it takes an hour


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=10_000.0, help="How long.")] = 60.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="Celery workers.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Chooses documents.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder for the results \\[default: bench/soak-TIME]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load real rollouts and workers as far as this machine can, and record memory and open files.

    Those of every process must be the same in the last third as in the middle one. Exit code 1 when something
    grew, or a request was lost.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.soak import bench
        from llmi.load.soak.memory import draw

        place = new_folder(folder, Path("bench"), "soak")
        with StopSignals() as signals, Stages(make_console(stderr=True), LINE_EVERY_S) as stages:
            soaked = signals.run(bench.run(60 * minutes, workers, seed, place, stages.step))
        draw(soaked, place / "soak.png")
        result.update(soaked.document(), folder=str(place))
        _show(console, soaked, place)
    if soaked.lost or not soaked.flat:
        raise typer.Exit(1)


def _show(console: Console, soaked: Soak, place: Path) -> None:
    from rich.table import Table

    table = Table("", "role", "processes", box=None, padding=(0, 2))
    for name in ("MiB", "open files"):
        table.add_column(name, justify="right")
    for one in soaked.series:
        table.add_row(
            "[bold green]✓[/]" if one.flat else "[bold red]✗[/]",
            one.role,
            str(one.processes),
            f"{one.middle_rss / MIB:.0f} → {one.last_rss / MIB:.0f}",
            f"{one.middle_files:.0f} → {one.last_files:.0f}",
        )
    print_table(console, table)
    console.print("[dim]the largest process of each role, in the middle and in the last third[/]")
    outcomes = ", ".join(f"{count:,} {how}" for how, count in soaked.outcomes.items())
    print_line(
        console,
        f"{soaked.requests:,} requests of {soaked.rollouts:,} rollouts in {soaked.seconds:.0f} s "
        f"({soaked.requests / soaked.seconds:.0f}/s), {soaked.lost} lost: {outcomes}; "
        f"[dim]see[/] [bold]{place}[/]",
    )
