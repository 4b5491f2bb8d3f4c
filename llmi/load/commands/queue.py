"""`llmi bench queue`: the queues against other task queues, and with a long backlog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_table
from llmi.load.commands.output import exit_if_missed, new_folder, print_targets
from llmi.load.queue.contestants import Options, Pool

if TYPE_CHECKING:
    from llmi.load.queue.numbers import Numbers, Rounds

DEFAULT = Options()


def queue(
    requests: Annotated[int, typer.Option(min=1, help="Requests of a throughput measurement.")] = 2000,
    in_flight: Annotated[int, typer.Option(min=1, max=4096, help="Requests in flight at once.")] = 64,
    singles: Annotated[int, typer.Option(min=1, help="Requests posted one at a time, for latency.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds; the median counts.")] = 5,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Jobs that the workers run at once.")] = 4,
    pool: Annotated[Pool, typer.Option(help="Processes or threads, of all task queues.")] = "prefork",
    waiting: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Length of a backlog; repeat it \\[default: 1,000 to 1,000,000]."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600.0, help="Duration of each measurement at a backlog.")
    ] = 5.0,
    backlog: Annotated[bool, typer.Option(help="Measure with a backlog.")] = True,
    others: Annotated[
        bool, typer.Option(help="Measure dramatiq, taskiq and arq, which are installed from PyPI once.")
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder for the results \\[default: bench/queue-TIME]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare throughput and latency with other task queues, and with up to a million waiting requests.

    Jobs that do nothing, real workers and Redis. Takes some ten minutes on two idle cores, and 2 GiB of
    memory and of disk.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.queue import bench
        from llmi.load.queue.picture import draw

        place = new_folder(folder, Path("bench"), "queue")
        backlogs = tuple(waiting or DEFAULT.waiting) if backlog else ()
        options = Options(requests, in_flight, singles, rounds, slots, pool, backlogs, seconds, others)
        with StopSignals(), Stages(make_console(stderr=True)) as stages:
            numbers = bench.run(options, place, stages.step, stages.notify)
        draw(numbers, place / "queue.png")
        result.update(numbers.document(), folder=str(place))
        _show(console, numbers)
        print_targets(console, numbers.targets)
        console.print(f"[dim]{numbers.wall_s:.0f} s in all; see[/] [bold]{place}[/]", highlight=False)
    exit_if_missed(numbers.targets)


def _show(console: Console, numbers: Numbers) -> None:
    from rich.table import Table

    options = numbers.options
    table = Table("task queue", box=None, padding=(0, 2))
    for name in (f"requests/s, {options.in_flight} in flight", "least–most", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for name, rounds in numbers.contestants.items():
        table.add_row(name, *_cells(rounds))
    print_table(console, table)
    for why in numbers.skipped.values():
        console.print(why, markup=False, highlight=False)
    if numbers.backlogs:
        _show_backlogs(console, numbers)


def _show_backlogs(console: Console, numbers: Numbers) -> None:
    from rich.table import Table

    table = Table("waiting", box=None, padding=(0, 2))
    for name in ("requests/s", "least–most", "p50 ms beside", "p99 ms beside", "KB per 1,000"):
        table.add_column(name, justify="right")
    commands = Table("µs per call", box=None, padding=(0, 2))
    for one in numbers.backlogs:
        table.add_row(f"{one.waiting:,}", *_cells(one.rounds), f"{one.kb_per_1000:,.0f}")
        commands.add_column(f"{one.waiting:,} waiting", justify="right")
    print_table(console, table)
    each = [one.commands() for one in numbers.backlogs]
    for name in sorted({name for known in each for name in known}):
        cells = (f"{known[name].us_per_call:.1f}" if name in known else "-" for known in each)
        commands.add_row(name.upper(), *cells)
    print_table(console, commands)


def _cells(rounds: Rounds) -> tuple[str, ...]:
    """Median, least and most requests per second; p50 and p99."""
    rates = sorted(one.per_s for one in rounds.rounds)
    return (
        f"{rounds.median('per_s'):,.0f}",
        f"{rates[0]:,.0f}–{rates[-1]:,.0f}",
        f"{rounds.median('p50'):.1f}",
        f"{rounds.median('p99'):.1f}",
    )
