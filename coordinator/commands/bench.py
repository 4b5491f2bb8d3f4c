"""`llmi bench`: what this program costs and gains, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.commands.output import Json, output

if TYPE_CHECKING:
    from coordinator.bench.client import Numbers

app = typer.Typer(no_args_is_help=True, help="Measure what this program costs and gains, on this machine.")


@app.callback()
def benches() -> None:
    """Each starts what it needs, and ends by itself."""


@app.command()
def client(
    rollouts: Annotated[
        int, typer.Option(min=1, max=20_000, help="In flight at once, in one process.")
    ] = 1000,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long to measure.")] = 20.0,
    as_json: Json = False,
) -> None:
    """What the producer's event loop costs: from a closed tag to the request in Redis.

    Real rollouts, queue client, ledger, scorer and Redis; the model and the workers are played. Needs some
    50 s more than [b]--seconds[/b], and two idle processor cores for numbers that mean something.
    """
    with output(as_json) as (console, result):
        from coordinator.bench.client import bench_folder, measure
        from coordinator.signals import StopSignals

        progress = Console(stderr=True)
        with StopSignals() as signals, bench_folder() as folder:
            say = lambda words: progress.print(words, style="dim", highlight=False)  # noqa: E731 - one line
            numbers = signals.run(measure(rollouts, seconds, Path(folder), say))
        result.update(numbers.document())
        _show(console, numbers)


def _show(console: Console, numbers: Numbers) -> None:
    from rich.table import Table

    times = Table("ms", "p50", "p90", "p99", "largest", "measured", box=None, padding=(0, 2))
    for column in times.columns[1:]:
        column.justify = "right"
    for name, spread in (
        ("tag closed to request in Redis", numbers.posting),
        ("event loop lag", numbers.loop_lag),
        ("bare round trip, loaded loop", numbers.raw_loaded),
        ("bare round trip, idle loop", numbers.raw_idle),
    ):
        values = (spread.p50, spread.p90, spread.p99, spread.largest)
        times.add_row(name, *(f"{value:.2f}" for value in values), str(spread.n))
    console.print(times)
    rest = Table(box=None, show_header=False, padding=(0, 2))
    rest.add_row(
        "against a bare round trip of the same bytes",
        f"{numbers.ratio_loaded:.1f} x on the loaded loop, {numbers.ratio_idle:.1f} x on the idle one "
        f"({numbers.message_bytes} bytes)",
    )
    rest.add_row(
        "load",
        f"{numbers.rollouts} rollouts in flight, {numbers.requests_per_s:.0f} requests/s, "
        f"{numbers.rollouts_per_s:.0f} rollouts/s, {numbers.processor_share:.0%} of one core",
    )
    rest.add_row(
        "memory per rollout beyond its tokens",
        f"{numbers.rollout_kb:.1f} KB of the process, {numbers.rollout_traced_kb:.1f} KB of Python's objects "
        f"({numbers.tokens_per_rollout:.0f} tokens each)",
    )
    rest.add_row(
        "left when all had ended",
        f"{numbers.left_traced_kb:.0f} KB, {numbers.left_open} requests, {numbers.failed} rollouts masked",
    )
    console.print(rest)
    for target in numbers.targets:
        sign = "[bold green]✓[/]" if target.met else "[bold red]✗[/]"
        console.print(
            f"{sign} {target.name}: [bold]{target.value:.1f}[/] {target.unit}, "
            f"asked for at most {target.at_most:g} {target.unit}",
            highlight=False,
        )
    console.print(f"[dim]{numbers.wall_s:.0f} s in all[/]", highlight=False)
