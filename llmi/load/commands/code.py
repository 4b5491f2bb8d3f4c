"""`llmi bench code`: what a chart costs in the jail."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.commands.output import Json, output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_table
from llmi.load.commands.judged import exit_if_missed, judged


def code(
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="Cold interpreters, one at a time.")] = 20,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Of throughput, each way.")] = 15.0,
    as_json: Json = False,
) -> None:
    """What a chart costs in the jail, beside a cold interpreter for each as the original has it."""
    with output(as_json) as (console, result):
        from rich.table import Table

        from llmi.load import code_bench

        with Stages(make_console(stderr=True)) as stages:
            numbers = code_bench.measure(rounds, seconds, stages.step)
        result.update(numbers.document())
        table = Table("ms", "p50", "p90", "p99", "largest", "measured", box=None, padding=(0, 2))
        for name, spread in (
            ("cold interpreter, one chart", numbers.cold),
            ("jail, the same chart", numbers.chart),
            ("jail, an empty job", numbers.empty),
        ):
            values = (spread.p50, spread.p90, spread.p99, spread.largest)
            table.add_row(name, *(f"{value:.1f}" for value in values), str(spread.n))
        print_table(console, table)
        console.print(
            f"{numbers.lanes} at once: {numbers.charts_per_s:.1f} charts/s in the jail, "
            f"{numbers.cold_per_s:.1f} with cold interpreters",
            highlight=False,
        )
        console.print(f"the jail: {numbers.held}", highlight=False)
        judged(console, numbers.targets)
    exit_if_missed(numbers.targets)
