"""`llmi bench`: what this program costs and gains, measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.commands.output import MAX_SEED, Json, output, stamp
from workers.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.bench.client import Numbers
    from coordinator.bench.overlap_result import Mix
    from coordinator.bench.soak import Soak
    from coordinator.bench.targets import Target

GIB, MIB = 2**30, 2**20
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
        import uvloop

        from coordinator.bench.client import bench_folder, measure
        from coordinator.signals import StopSignals

        progress = Console(stderr=True)
        with StopSignals() as signals, bench_folder() as folder:
            say = lambda words: progress.print(words, style="dim", highlight=False)  # noqa: E731 - one line
            # uvloop's is the event loop of Ray's actors, and so of rollouts.
            work = measure(rollouts, seconds, Path(folder), say)
            numbers = signals.run(work, loop_factory=uvloop.new_event_loop)
        result.update(numbers.document())
        _show(console, numbers)


@app.command()
def overlap(
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to put it \\[default: bench/overlap and the time]."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="A YAML file with other services, slots or lengths."),
    ] = None,
    fast: Annotated[
        bool, typer.Option(help="Also the mix of fast services, for which nothing should be lost.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings and the arms' lengths; start nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The same GRPO run in four ways: as the original blocks, wider, as verl overlaps, and ours.

    Real verl, vLLM, queues and workers, and services that take as long as drawn. Takes some 40 minutes on two
    cores, which should have nothing else to do; its first run also builds the demo's policy.
    """
    with output(as_json) as (console, result):
        from coordinator.bench import overlap_bench
        from coordinator.signals import StopSignals

        wanted = overlap_bench.read(settings)
        if dry_run:
            result.update(wanted.model_dump(mode="json"))
            console.print_json(wanted.model_dump_json())
            return
        with StopSignals() as signals:
            place = folder or Path("bench") / stamp("overlap")
            mixes, targets, document = overlap_bench.run(wanted, place, fast, signals, Console(stderr=True))
        result.update(document)
        for mix in mixes:
            _show_mix(console, mix)
        _judged(console, targets)
        console.print(f"[dim]{document['seconds']:.0f} s in all; see[/] [bold]{place}[/]", highlight=False)


@app.command()
def code(
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="Cold interpreters, one at a time.")] = 20,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Of throughput, each way.")] = 15.0,
    as_json: Json = False,
) -> None:
    """What a chart costs in the jail, beside a cold interpreter for each as the original has it."""
    with output(as_json) as (console, result):
        from rich.table import Table

        from coordinator.bench import charts

        err = Console(stderr=True)
        with err.status("") as status:
            numbers = charts.measure(rounds, seconds, lambda words: status.update(f"[dim]{words}[/]"))
        result.update(numbers.document())
        table = Table("ms", "p50", "p90", "p99", "largest", "measured", box=None, padding=(0, 2))
        for name, spread in (
            ("cold interpreter, one chart", numbers.cold),
            ("jail, the same chart", numbers.chart),
            ("jail, an empty job", numbers.empty),
        ):
            values = (spread.p50, spread.p90, spread.p99, spread.largest)
            table.add_row(name, *(f"{value:.1f}" for value in values), str(spread.n))
        console.print(table)
        console.print(
            f"{numbers.lanes} at once: {numbers.charts_per_s:.1f} charts/s in the jail, "
            f"{numbers.cold_per_s:.1f} with cold interpreters",
            highlight=False,
        )
        held = ", ".join(name for name, held in numbers.layers.items() if held)
        console.print(f"layers that hold: {held}", highlight=False)
        _judged(console, numbers.targets)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=10_000.0, help="How long.")] = 60.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="Celery workers.")] = 4,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Chooses documents.")] = 1,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to put it \\[default: bench/soak and the time].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run real rollouts and workers as hard as this machine can; look whether anything grows.

    Memory and open files of every process must be the same in the last third as in the middle one. Exit code
    1 when something grew, or a request was lost.
    """
    with output(as_json) as (console, result):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from coordinator.bench import soak as soaking
        from coordinator.bench.soak_picture import draw
        from coordinator.signals import StopSignals

        place = (folder or Path("bench") / stamp("soak")).absolute()
        if place.exists():
            raise ConfigError(f"--folder: {place} already exists; name another one")
        place.mkdir(parents=True)
        err = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with StopSignals() as signals, Progress(*columns, console=err, transient=True) as bars:
            bar = bars.add_task("soaking", total=60 * minutes)
            tell = lambda s, posted: bars.update(bar, completed=s, description=f"{posted:,} requests")  # noqa: E731 - one line
            say = lambda words: err.print(words, style="dim", highlight=False)  # noqa: E731 - one line
            told = signals.run(soaking.run(60 * minutes, workers, seed, place, say, tell))
        draw(told, place / "soak.png")
        result.update(told.document(), folder=str(place))
        _show_soak(console, told, place)
    if told.lost or not told.flat:
        raise typer.Exit(1)


def _show_soak(console: Console, told: Soak, place: Path) -> None:
    from rich.table import Table

    table = Table("", "role", "processes", box=None, padding=(0, 2))
    for name in ("MiB", "open files"):
        table.add_column(name, justify="right")
    for one in told.series:
        table.add_row(
            "[bold green]✓[/]" if one.flat else "[bold red]✗[/]",
            one.role,
            str(one.processes),
            f"{one.middle_rss / MIB:.0f} → {one.last_rss / MIB:.0f}",
            f"{one.middle_files:.0f} → {one.last_files:.0f}",
        )
    console.print(table)
    console.print("[dim]the largest process of each role, in the middle and in the last third[/]")
    outcomes = ", ".join(f"{count:,} {how}" for how, count in told.outcomes.items())
    console.print(
        f"{told.requests:,} requests of {told.rollouts:,} rollouts in {told.seconds:.0f} s "
        f"({told.requests / told.seconds:.0f}/s), {told.lost} lost: {outcomes}; [dim]see[/] [bold]{place}[/]",
        highlight=False,
    )


def _show_mix(console: Console, mix: Mix) -> None:
    from rich.table import Table

    table = Table(title=f"{mix.name} services", title_justify="left", box=None, padding=(0, 2))
    table.add_column("arm")
    for name in ("s/step", "least–most", "samples/s", "bound s/step", "set by", "trainer idle",
                 "unavoidable", "generator idle", "staleness", "reward", "GiB"):  # fmt: skip
        table.add_column(name, justify="right")
    for name, arm in mix.arms.items():
        each = mix.bounds[name]
        step = arm.seconds_per_step
        table.add_row(
            name,
            f"{step.median:.1f}",
            f"{step.least:.1f}–{step.most:.1f}",
            f"{arm.samples_per_s.median:.2f}",
            f"{each.seconds:.1f}",
            each.largest,
            f"{arm.trainer_idle_ratio.median:.0%}",
            f"{each.trainer_idle_ratio:.0%}",
            f"{arm.generation_idle_ratio:.0%}",
            f"{arm.staleness_mean:.2f}",
            f"{arm.reward:.3f}",
            f"{arm.peak_rss_bytes / GIB:.1f}",
        )
    console.print(table)
    waits = Table("queue wait, s (p50 / p99)", box=None, padding=(0, 2))
    queues = list(mix.services.slots)
    for queue in queues:
        waits.add_column(queue, justify="right")
    for name, arm in mix.arms.items():
        cells = (arm.queues.get(queue) for queue in queues)
        waits.add_row(name, *(f"{q.wait_p50_s:.1f} / {q.wait_p99_s:.1f}" if q else "-" for q in cells))
    console.print(waits)


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
    _judged(console, numbers.targets)
    console.print(f"[dim]{numbers.wall_s:.0f} s in all[/]", highlight=False)


def _judged(console: Console, targets: Sequence[Target]) -> None:
    for target in targets:
        sign = "[bold green]✓[/]" if target.met else "[bold red]✗[/]"
        console.print(
            f"{sign} {target.name}: [bold]{target.value:.2f}[/] {target.unit}, asked for {target.asked}",
            highlight=False,
        )
