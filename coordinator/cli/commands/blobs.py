"""`llmi blobs`: clear up the place where images lie."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.commands.output import Json, Runs, output, run_folder
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console

HOUR_S = 3600.0
MIB = 2**20


def blobs(
    users: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs (folders, or names under --runs) or evaluations (folders, URLs) that share one place.",
        ),
    ],
    runs: Runs = Path("runs"),
    older_than: Annotated[
        float,
        typer.Option(
            metavar="HOURS", min=2.0, help="Leave what is younger; no job takes as long as the least allowed."
        ),
    ] = 24.0,
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE", help="A run or evaluation that is gone for good. May be given again."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove images that nobody names any more, and half-written ones. Safe while runs go on.

    An image stays when a ledger, an evaluation, a request or an outcome names it. A place that several runs
    use has a list of them; all must be readable from here, else nothing is removed.
    """
    with output(as_json) as (console, result):
        from coordinator.blobs.collector import collect

        with Stages(make_console(stderr=True)) as stages:
            done = collect(
                [_place(user, runs) for user in users],
                keep_s=older_than * HOUR_S,
                forget=forget or (),
                dry_run=dry_run,
                step=stages.step,
            )
        result.update(asdict(done), dry_run=dry_run)
        what = f"{done.garbage:,} of no use ({done.garbage_bytes / MIB:.1f} MiB)"
        console.print(
            f"{done.url}: {done.named:,} images in use, {done.young:,} too young to tell, {what}; "
            + ("nothing was removed (--dry-run)" if dry_run else f"removed {done.removed:,}"),
            highlight=False,
            soft_wrap=True,
        )


def _place(user: str, runs: Path) -> str:
    """As it stands on a store's list: a URL, or the whole path."""
    if "://" in user:
        return user.rstrip("/")
    return str(run_folder(user, runs).absolute())
