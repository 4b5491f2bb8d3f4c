"""`llmi chaos`: break everything, then look whether anything was lost, doubled or made up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from coordinator.cli.commands.output import MAX_SEED, Json, output, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_table
from workers.errors import ConfigError

if TYPE_CHECKING:
    from llmi.load.chaos.trial import Result

TOLD = 10  # violations of one rule that are shown


def chaos(
    requests: Annotated[int, typer.Option(min=1, help="At least so many are posted.")] = 2000,
    minutes: Annotated[float, typer.Option(min=0.0, help="It goes on for at least so long.")] = 0.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="Celery workers.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Chooses faults and documents.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder for the results \\[default: chaos/ and the time]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run real rollouts and workers while killing, stopping and cutting what they need; then audit.

    Every kind of fault comes at least twice. Exit code 1 when a request was lost or doubled, a blob is
    missing, or a number came from a failure.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.chaos import trial

        place = (folder or Path("chaos") / stamp("seed")).absolute()
        if place.exists():
            raise ConfigError(f"--dir: {place} already exists; name another one")
        place.mkdir(parents=True)
        wanted = trial.Wanted(requests=requests, workers=workers, seconds=60 * minutes, seed=seed)
        with StopSignals() as signals, Stages(make_console(stderr=True)) as stages:

            def tell(posted: int, in_flight: int) -> None:
                words = f"{posted:,} of {requests:,} requests posted, {in_flight} under way"
                stages.step("posting requests among faults", min(1.0, posted / requests), words)

            told = signals.run(trial.run(wanted, place, stages.say, tell))
        result.update(_document(told), folder=str(place))
        _show(console, told, place)
    if not told.kept:
        raise typer.Exit(1)


def _document(told: Result) -> dict[str, Any]:
    rules = [{**asdict(rule), "violations": list(rule.violations)} for rule in told.rules]
    return {**asdict(told), "rules": rules, "kept": told.kept}


def _show(console: Console, told: Result, place: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    faults = Table("fault", "times", box=None, padding=(0, 2))
    for name, count in told.faults.items():
        faults.add_row(name, str(count))
    print_table(console, faults)
    outcomes = Table("queue", "posted", "outcomes", box=None, padding=(0, 2))
    for kind, counts in told.outcomes.items():
        words = ", ".join(f"{count:,} {how}" for how, count in counts.items())
        outcomes.add_row(kind, f"{sum(counts.values()):,}", words)
    print_table(console, outcomes)
    rules = Table("", "rule", "checked", "broken", box=None, padding=(0, 2))
    for rule in told.rules:
        sign = "[bold red]✗[/]" if rule.violations else "[bold green]✓[/]"
        rules.add_row(sign, rule.name, f"{rule.checked:,}", f"{len(rule.violations):,}")
    print_table(console, rules)
    for rule in told.rules:
        for text in rule.violations[:TOLD]:
            console.print(f"[red]✗[/] {escape(text)}", highlight=False)
    console.print(
        f"{told.requests:,} requests of {told.rollouts:,} rollouts, {told.starts:,} starts, {told.again:,} "
        f"requests started more than once, {told.restarts} workers replaced, {told.trained:,} samples in "
        f"batches; [dim]{told.seconds:.0f} s, see[/] [bold]{place}[/]",
        highlight=False,
    )
