"""The targets of a benchmark: how they are printed, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from llmi.load.targets import Target


def judged(console: Console, targets: Sequence[Target]) -> None:
    """Print each target, and whether it is met."""
    for target in targets:
        sign = "[bold green]✓[/]" if target.met else "[bold red]✗[/]"
        console.print(
            f"{sign} {target.name}: [bold]{target.value:.2f}[/] {target.unit}, asked for {target.asked}",
            highlight=False,
        )


def exit_if_missed(targets: Sequence[Target]) -> None:
    """Exit with code 1 if a target is missed."""
    if not all(target.met for target in targets):
        raise typer.Exit(1)
