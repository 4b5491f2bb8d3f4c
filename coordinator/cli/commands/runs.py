"""`llmi runs list`, `llmi status` and `llmi report`: the runs of a folder, where one stands, and its page."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.options import Json, Run, Runs, run_folder
from coordinator.cli.output import output
from coordinator.console.terminal import can_redraw, print_line, print_table

if TYPE_CHECKING:
    from coordinator.watch.status import Status

QUIET_S = 60.0
SHOWN_S = 0.1  # shorter idle times are in the JSON only
WATCH_S, LINES_S = 2.0, 30.0  # between two views on a terminal, and elsewhere
app = typer.Typer(no_args_is_help=True, help="List the runs of a folder.")


@app.callback()
def group() -> None:
    """List the runs of a folder."""


@app.command("list")
def list_all(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List the runs of a folder, the newest first: name, state, step, reward and start."""
    with output(as_json) as (console, result):
        from rich.table import Table

        from coordinator.watch.run_list import list_runs

        rows = list_runs(runs)
        result["runs"] = [row.model_dump(mode="json") for row in rows]
        if not rows:
            print_line(console, f"no run in {runs}")
            return
        table = Table("run", "state", "step", "reward", "started", box=None, pad_edge=False)
        for row in rows:
            reward = "-" if row.reward is None else f"{row.reward:.3f}"
            table.add_row(row.name, row.state, f"{row.step}/{row.steps or '?'}", reward, row.started or "-")
        print_table(console, table)


def report(
    run: Run,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the page of a run again from its folder, and print where it is.

    Works while the run goes on: then the page shows the run so far.
    """
    with output(as_json) as (console, result):
        from coordinator.watch.report import rebuild

        page, summary = rebuild(run_folder(run, runs))
        result.update(summary.model_dump(mode="json"), report=str(page))
        print_line(console, f"[bold]{page}[/]")


def status(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the run has ended.")] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show the progress of a run: step, reward, why trainer and generator were idle, and what is stuck.

    Works while the run goes on, and after.
    """
    with output(as_json) as (console, result):
        from coordinator.watch.status import read_status

        folder = run_folder(run, runs)
        now = read_status(folder)
        if watch:
            now = _watch(console, now, folder)
        result.update(now.model_dump(mode="json"))
        _show(console, now, folder)


def _watch(console: Console, now: Status, folder: Path) -> Status:
    """Show the status until the run has ended or no process of it is left; returns the last one."""
    from rich.live import Live
    from rich.text import Text

    from coordinator.watch.run_list import in_use
    from coordinator.watch.status import read_status

    view = Live(console=console, auto_refresh=False, transient=True) if can_redraw(console) else None
    with view or nullcontext():
        while not now.ended and (now.quiet_s < QUIET_S or in_use(folder)):
            if view is not None:
                view.update(Text("\n".join(_lines(now, folder))), refresh=True)
            else:
                _show(console, now, folder)
            time.sleep(LINES_S if view is None else WATCH_S)
            now = read_status(folder)
    return now


def _show(console: Console, now: Status, folder: Path) -> None:
    for line in _lines(now, folder):
        print_line(console, line, markup=False)


def _lines(now: Status, folder: Path) -> list[str]:
    from coordinator.console.stages import duration
    from coordinator.watch.status import in_words

    lines: list[str] = []

    def line(what: str, words: str) -> None:
        lines.append(f"{what:<16}{words}")

    if now.quiet_s > QUIET_S and not now.ended:
        line(now.name, f"no end is recorded, and nothing was written for {now.quiet_s:.0f} s")
    else:
        line(now.name, "ended" if now.ended else "running")
    left = f", about {duration(now.left_s)} left" if now.left_s else ""
    line("step", f"{now.step}/{now.steps or '?'}{left}")
    line("reward", "-" if now.reward is None else f"{now.reward:.3f}")
    if now.evaluation:
        line("evaluation", now.evaluation.words)
    line("trainer idle", _causes(now.trainer_idle_ratio, now.trainer_idle_s))
    line("generator idle", _causes(now.generator_idle_ratio, now.generator_idle_s))
    if now.masked:
        causes = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in now.masked.items())
        line("masked", f"{causes}; `llmi why {folder}` lists them")
    if now.waiting:
        line("waiting for", in_words(now.waiting))
    for words in now.paused:
        line("paused", words)
    for words in now.down:
        if words not in now.paused:
            line("circuit open", words)
    for words in now.advisories:
        line("masking answers", words)
    if now.queues is not None:
        busy = {name: depth for name, depth in now.queues.items() if any(depth.values())}
        shown = (f"{name} {d['waiting']} waiting, {d['running']} running" for name, d in busy.items())
        line("queues", "; ".join(shown) or "empty")
    elif not now.ended:
        line("queues", "Redis does not answer")
    if one := now.longest_pending:
        line("longest pending", f"{one.request_id}, {one.tool}, for {one.age_s:.0f} s: {one.state}")
        line("", f"for {one.rollout}: {one.prompt}")
    return lines


def _causes(ratio: float | None, seconds: dict[str, float]) -> str:
    share = "-" if ratio is None else f"{ratio:.0%}"
    shown = (f"{cause} {value:.1f} s" for cause, value in seconds.items() if value >= SHOWN_S)
    return ", ".join([share, *shown])
