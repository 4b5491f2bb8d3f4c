"""`llmi bench staleness`: time and samples to a reward, by how old the samples are and whether that is
corrected."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output, stamp
from coordinator.console.stages import duration
from coordinator.console.terminal import make_console, print_line, print_table
from llmi.load.commands.output import exit_if_missed, print_targets

if TYPE_CHECKING:
    from llmi.load.staleness.numbers import ArmNumbers, Middle


def staleness(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Folder for the results; with that of an interrupted run, finish it "
            "\\[default: bench/staleness-TIME].",
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A YAML file with other arms, seeds or lengths."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings; start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train the tiny policy to a fixed reward: synchronous, as verl, as llmi, uncorrected, and very stale.

    Real verl, vLLM, queues and workers; simulated service times. Fifteen runs; the first also builds the
    demo's policy.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.staleness import bench
        from llmi.load.staleness.settings import StalenessSettings
        from llmi.load.training import read_settings

        wanted = read_settings(StalenessSettings, settings, "llmi bench staleness")
        if dry_run:
            result.update(wanted.model_dump(mode="json"))
            console.print_json(wanted.model_dump_json())
            return
        place = folder or Path("bench") / stamp("staleness")
        with StopSignals() as signals:
            numbers, targets, document = bench.run(wanted, place, signals, make_console(stderr=True))
        result.update(document)
        _show(console, numbers)
        print_targets(console, targets)
        print_line(console, f"[dim]{duration(document['seconds'])} in all; see[/] [bold]{place}[/]")
    exit_if_missed(targets)


def _show(console: Console, numbers: list[ArmNumbers]) -> None:
    from rich.table import Table

    table = Table("arm", box=None, padding=(0, 2))
    for name in ("reached", "steps", "s/step", "samples/s", "staleness", "oldest", "effective", "clipped",
                 "gain/1000 samples", "gain/step", "gain/hour", "faster than coupled",
                 "fewer samples than synchronous"):  # fmt: skip
        table.add_column(name, justify="right")
    for one in numbers:
        found = [reached for reached in one.reached.values() if reached is not None]
        steps = ", ".join(str(reached.steps) if reached else "–" for reached in one.reached.values())
        table.add_row(
            one.name,
            f"{len(found)} of {len(one.reached)}",
            steps,
            f"{one.step_s:.1f}",
            f"{one.samples_per_s:.1f}",
            f"{one.staleness:.2f}",
            f"{one.staleness_worst:.0f}",
            _share(one.effective),
            _share(one.clipped),
            *(_middle(gain, 3) for gain in one.gain_per.values()),
            _middle(one.faster, 2),
            _middle(one.fewer, 2),
        )
    print_table(console, table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _middle(value: Middle | None, digits: int) -> str:
    """The median, and the range."""
    if value is None:
        return "–"

    def shown(number: float) -> str:
        return f"{number:.{digits}f}" if math.isfinite(number) else "∞"

    return f"{shown(value.median)} ({shown(value.least)}–{shown(value.most)})"
