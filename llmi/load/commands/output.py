"""Common parts of the benchmark commands: folder for results, tables of durations, targets, exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from coordinator.cli.output import stamp
from coordinator.console.terminal import print_line, print_table
from workers.errors import ConfigError

if TYPE_CHECKING:
    from llmi.load.spread import Spread
    from llmi.load.targets import Target


def new_folder(named: Path | None, parent: Path, prefix: str) -> Path:
    """Make the folder `named`, or `parent/prefix-TIME`. Raises `ConfigError` if it exists."""
    folder = (named or parent / stamp(prefix)).absolute()
    if folder.exists():
        raise ConfigError(f"--dir: {folder} already exists; name another one")
    folder.mkdir(parents=True)
    return folder


def print_spreads(console: Console, spreads: Mapping[str, Spread], digits: int) -> None:
    """Print quantiles of durations in ms, one row each."""
    from rich.table import Table

    table = Table("ms", "p50", "p90", "p99", "largest", "measured", box=None, padding=(0, 2))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, spread in spreads.items():
        values = (spread.p50, spread.p90, spread.p99, spread.largest)
        table.add_row(name, *(f"{value:.{digits}f}" for value in values), str(spread.n))
    print_table(console, table)


def print_targets(console: Console, targets: Sequence[Target]) -> None:
    """Print each target, whether it is met, its value and its limits."""
    for target in targets:
        sign = "[bold green]✓[/]" if target.met else "[bold red]✗[/]"
        print_line(
            console,
            f"{sign} {target.name}: [bold]{target.value:.2f}[/] {target.unit}, target {target.limits}",
        )


def exit_if_missed(targets: Sequence[Target]) -> None:
    """Exit with code 1 if a target is missed."""
    if not all(target.met for target in targets):
        raise typer.Exit(1)
