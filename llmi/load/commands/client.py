"""`llmi bench client`: the load on the producer's event loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table
from llmi.load.commands.output import exit_if_missed, print_spreads, print_targets

if TYPE_CHECKING:
    from llmi.load.client.numbers import Numbers


def client(
    rollouts: Annotated[
        int, typer.Option(min=1, max=20_000, help="Rollouts in flight at once, in one process.")
    ] = 1000,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long to measure.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Measure the producer's event loop: from a closed tag to its request in Redis.

    Real rollouts, queue client, ledger, scorer and Redis; the model and the workers are simulated. Takes some
    50 s more than [b]--seconds[/b], and needs two idle processor cores.
    """
    with output(as_json) as (console, result):
        import uvloop

        from coordinator.host.signals import StopSignals
        from llmi.load.client.bench import bench_folder, measure

        stages = Stages(make_console(stderr=True))
        with StopSignals() as signals, bench_folder() as folder, stages:
            # uvloop's is the event loop of Ray's actors, and so of rollouts.
            work = measure(rollouts, seconds, Path(folder), stages.step)
            numbers = signals.run(work, loop_factory=uvloop.new_event_loop)
        result.update(numbers.document())
        show(console, numbers)
    exit_if_missed(numbers.targets)


def show(console: Console, numbers: Numbers) -> None:
    """Print all numbers and targets."""
    from rich.table import Table

    spreads = {
        "tag closed to request in Redis": numbers.posting,
        "event loop lag": numbers.loop_lag,
        "bare round trip, loaded loop": numbers.raw_loaded,
        "bare round trip, idle loop": numbers.raw_idle,
    }
    print_spreads(console, spreads, 2)
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
    print_table(console, rest)
    print_targets(console, numbers.targets)
    print_line(console, f"[dim]{numbers.wall_s:.0f} s in all[/]")
