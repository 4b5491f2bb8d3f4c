"""`llmi bench soak`: whether anything grows when work goes on and on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.commands.output import MAX_SEED, Json, output, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_table
from workers.errors import ConfigError

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
        typer.Option(
            "--dir", metavar="DIR", help="Folder for the results \\[default: bench/soak and the time]."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run real rollouts and workers as hard as this machine can; look whether anything grows.

    Memory and open files of every process must be the same in the last third as in the middle one. Exit code
    1 when something grew, or a request was lost.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.soak import bench as soaking
        from llmi.load.soak.picture import draw

        place = (folder or Path("bench") / stamp("soak")).absolute()
        if place.exists():
            raise ConfigError(f"--dir: {place} already exists; name another one")
        place.mkdir(parents=True)
        with StopSignals() as signals, Stages(make_console(stderr=True), LINE_EVERY_S) as stages:

            def tell(so_far: float, posted: int) -> None:
                stages.step("soaking", min(1.0, so_far / (60 * minutes)), f"{posted:,} requests")

            told = signals.run(soaking.run(60 * minutes, workers, seed, place, stages.say, tell))
        draw(told, place / "soak.png")
        result.update(told.document(), folder=str(place))
        _show(console, told, place)
    if told.lost or not told.flat:
        raise typer.Exit(1)


def _show(console: Console, told: Soak, place: Path) -> None:
    from rich.table import Table

    table = Table("", "role", "processes", box=None, padding=(0, 2))
    for name in ("MiB", "open files"):
        table.add_column(name, justify="right")
    for one in told.series:
        table.add_row(
            "[bold green]✓[/]" if one.flat else "[bold red]✗[/]",
            one.role,
            str(one.processes),
            f"{one.middle_rss / MIB:.0f} → {one.last_rss / MIB:.0f}",
            f"{one.middle_files:.0f} → {one.last_files:.0f}",
        )
    print_table(console, table)
    console.print("[dim]the largest process of each role, in the middle and in the last third[/]")
    outcomes = ", ".join(f"{count:,} {how}" for how, count in told.outcomes.items())
    console.print(
        f"{told.requests:,} requests of {told.rollouts:,} rollouts in {told.seconds:.0f} s "
        f"({told.requests / told.seconds:.0f}/s), {told.lost} lost: {outcomes}; [dim]see[/] [bold]{place}[/]",
        highlight=False,
    )
