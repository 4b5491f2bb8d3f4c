"""What a bench's targets are told as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from llmi.load.targets import Target


def judged(console: Console, targets: Sequence[Target]) -> None:
    for target in targets:
        sign = "[bold green]✓[/]" if target.met else "[bold red]✗[/]"
        console.print(
            f"{sign} {target.name}: [bold]{target.value:.2f}[/] {target.unit}, asked for {target.asked}",
            highlight=False,
        )
