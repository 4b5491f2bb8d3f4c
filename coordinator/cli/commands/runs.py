"""`llmi runs list` and `llmi report`: the runs of a folder, and the page of one."""

from __future__ import annotations

from pathlib import Path

import typer

from coordinator.cli.options import Json, Run, Runs, run_folder
from coordinator.cli.output import output
from coordinator.console.terminal import print_line, print_table

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
