"""`llmi chaos`: inject faults under load, then audit what was lost or duplicated."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.options import MAX_SEED, Json
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table
from llmi.load.commands.output import new_folder
from llmi.load.testbed.clocks import SHIFT_S

if TYPE_CHECKING:
    from llmi.load.chaos.trial import Result

SHOWN = 10  # violations of one rule that are shown


def chaos(
    requests: Annotated[int, typer.Option(min=1, help="Least number of requests to post.")] = 2000,
    minutes: Annotated[float, typer.Option(min=0.0, help="Shortest duration.")] = 0.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="Celery workers.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of faults and documents.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder for the results \\[default: chaos/seed-TIME]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Inject faults into real rollouts and workers under load, then audit every request.

    Every kind of fault is injected at least twice. Exit code 1 when a request was lost or duplicated, a blob
    is missing, or a reward came from an infrastructure failure.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.chaos import trial

        place = new_folder(folder, Path("chaos"), "seed")
        options = trial.Options(requests=requests, workers=workers, seconds=60 * minutes, seed=seed)
        with StopSignals() as signals, Stages(make_console(stderr=True)) as stages:
            found = signals.run(trial.run(options, place, stages.step, stages.notify))
        result.update(_document(found), folder=str(place))
        _show(console, found, place)
    if not found.kept:
        raise typer.Exit(1)


def _document(found: Result) -> dict[str, Any]:
    rules = [{**asdict(rule), "violations": list(rule.violations)} for rule in found.rules]
    return {**asdict(found), "rules": rules, "kept": found.kept}


def _show(console: Console, found: Result, place: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    faults = Table("fault", "times", box=None, padding=(0, 2))
    for name, count in found.faults.items():
        faults.add_row(name, str(count))
    shifted = "all the time" if found.clocks else "skipped: there is no C compiler"
    faults.add_row(f"wall clocks of two workers {SHIFT_S} s ahead and behind", shifted)
    print_table(console, faults)
    outcomes = Table("queue", "posted", "outcomes", box=None, padding=(0, 2))
    for kind, counts in found.outcomes.items():
        words = ", ".join(f"{count:,} {how}" for how, count in counts.items())
        outcomes.add_row(kind, f"{sum(counts.values()):,}", words)
    print_table(console, outcomes)
    rules = Table("", "rule", "checked", "broken", box=None, padding=(0, 2))
    for rule in found.rules:
        sign = "[bold red]✗[/]" if rule.violations else "[bold green]✓[/]"
        rules.add_row(sign, rule.name, f"{rule.checked:,}", f"{len(rule.violations):,}")
    print_table(console, rules)
    for rule in found.rules:
        for text in rule.violations[:SHOWN]:
            print_line(console, f"[red]✗[/] {escape(text)}")
    print_line(
        console,
        f"{found.requests:,} requests of {found.rollouts:,} rollouts, {found.starts:,} starts, "
        f"{found.again:,} requests started more than once, {found.restarts} workers replaced, "
        f"{found.trained:,} samples in batches; [dim]{found.seconds:.0f} s, see[/] [bold]{place}[/]",
    )
