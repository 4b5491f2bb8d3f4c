"""`llmi bench overlap`: a run's throughput, with and without waiting for tools and judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import Json
from coordinator.cli.output import output, stamp
from coordinator.console.terminal import make_console, print_line, print_table
from llmi.load.commands.output import exit_if_missed, print_targets

if TYPE_CHECKING:
    from llmi.load.overlap.bench import Mix

GIB = 2**30


def overlap(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder for the results \\[default: bench/overlap-TIME]."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A YAML file with other services, slots or lengths."),
    ] = None,
    fast: Annotated[
        bool, typer.Option(help="Also measure a mix of fast services, where overlap must cost nothing.")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the settings and the steps of each variant; start nothing."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the same GRPO run in four variants: blocking, blocking with more threads, as verl, as llmi.

    Real verl, vLLM, queues and workers; simulated service times. Takes some 40 minutes on two idle cores; the
    first run also builds the demo's policy.
    """
    with output(as_json) as (console, result):
        from coordinator.host.signals import StopSignals
        from llmi.load.overlap import bench as overlap_bench
        from llmi.load.overlap.settings import OverlapSettings
        from llmi.load.training import read_settings

        wanted = read_settings(OverlapSettings, settings, "llmi bench overlap")
        if dry_run:
            result.update(wanted.model_dump(mode="json"))
            console.print_json(wanted.model_dump_json())
            return
        with StopSignals() as signals:
            place = folder or Path("bench") / stamp("overlap")
            mixes, targets, document = overlap_bench.run(
                wanted, place, fast, signals, make_console(stderr=True)
            )
        result.update(document)
        for mix in mixes:
            _show(console, mix)
        print_targets(console, targets)
        print_line(console, f"[dim]{document['seconds']:.0f} s in all; see[/] [bold]{place}[/]")
    exit_if_missed(targets)


def _show(console: Console, mix: Mix) -> None:
    from rich.table import Table

    table = Table(title=f"{mix.name} services", title_justify="left", box=None, padding=(0, 2))
    table.add_column("variant")
    for name in ("s/step", "least–most", "samples/s", "bound s/step", "set by", "trainer idle",
                 "unavoidable", "generator idle", "staleness", "reward", "GiB"):  # fmt: skip
        table.add_column(name, justify="right")
    for name, variant in mix.variants.items():
        each = mix.bounds[name]
        step = variant.seconds_per_step
        table.add_row(
            name,
            f"{step.median:.1f}",
            f"{step.least:.1f}–{step.most:.1f}",
            f"{variant.samples_per_s.median:.2f}",
            f"{each.seconds:.1f}",
            each.largest,
            f"{variant.trainer_idle_ratio.median:.0%}",
            f"{each.trainer_idle_ratio:.0%}",
            f"{variant.generation_idle_ratio:.0%}",
            f"{variant.staleness_mean:.2f}",
            f"{variant.reward:.3f}",
            f"{variant.peak_rss_bytes / GIB:.1f}",
        )
    print_table(console, table)
    waits = Table("queue wait, s (p50 / p99)", box=None, padding=(0, 2))
    queues = list(mix.services.slots)
    for queue in queues:
        waits.add_column(queue, justify="right")
    for name, variant in mix.variants.items():
        cells = (variant.queues.get(queue) for queue in queues)
        waits.add_row(name, *(f"{q.wait_p50_s:.1f} / {q.wait_p99_s:.1f}" if q else "-" for q in cells))
    print_table(console, waits)
