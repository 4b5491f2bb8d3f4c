"""`llmi bench code`: latency and throughput of charts in the jail."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import Json
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line
from llmi.load.commands.output import exit_if_missed, print_spreads, print_targets


def code(
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="Cold interpreters, one at a time.")] = 20,
    seconds: Annotated[
        float, typer.Option(min=1.0, max=600.0, help="Duration of each throughput measurement.")
    ] = 15.0,
    as_json: Json = False,
) -> None:
    """Measure a chart in the jail against a cold interpreter for each, as in the original code."""
    with output(as_json) as (console, result):
        from llmi.load import code_bench

        with Stages(make_console(stderr=True)) as stages:
            numbers = code_bench.measure(rounds, seconds, stages.step)
        result.update(numbers.document())
        spreads = {
            "cold interpreter, one chart": numbers.cold,
            "jail, the same chart": numbers.chart,
            "jail, an empty job": numbers.empty,
        }
        print_spreads(console, spreads, 1)
        print_line(
            console,
            f"{numbers.lanes} at once: {numbers.charts_per_s:.1f} charts/s in the jail, "
            f"{numbers.cold_per_s:.1f} with cold interpreters",
        )
        print_line(console, f"the jail: {numbers.held}")
        print_targets(console, numbers.targets)
    exit_if_missed(numbers.targets)
