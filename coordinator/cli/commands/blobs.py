"""`llmi blobs`: remove images that nothing refers to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.options import Json, Runs, run_folder
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line

HOUR_S = 3600.0
MIB = 2**20


def blobs(
    users: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs (folders, or names under --dir) and evaluations (folders, URLs) that share one store.",
        ),
    ],
    runs: Runs = Path("runs"),
    older_than_hours: Annotated[
        float,
        typer.Option(
            metavar="HOURS", min=2.0, help="Keep younger images. The minimum is longer than any job takes."
        ),
    ] = 24.0,
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="A run or evaluation that no longer exists; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed; remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove images that nothing refers to, and partly written ones. Safe while runs go on.

    An image is kept when a ledger, an evaluation, a request or an outcome refers to it. A store that several
    runs share lists them; all of them must be readable from here, else nothing is removed.
    """
    with output(as_json) as (console, result):
        from coordinator.blobs.collector import collect

        with Stages(make_console(stderr=True)) as stages:
            done = collect(
                [_place(user, runs) for user in users],
                keep_s=older_than_hours * HOUR_S,
                forget=forget or (),
                dry_run=dry_run,
                step=stages.step,
            )
        result.update(asdict(done), dry_run=dry_run)
        what = f"{done.garbage:,} unused ({done.garbage_bytes / MIB:.1f} MiB)"
        print_line(
            console,
            f"{done.url}: {done.named:,} images in use, {done.young:,} too young to remove, {what}; "
            + ("nothing was removed (--dry-run)" if dry_run else f"removed {done.removed:,}"),
        )


def _place(user: str, runs: Path) -> str:
    """A user as the store lists it: a URL, or an absolute path."""
    if "://" in user:
        return user.rstrip("/")
    return str(run_folder(user, runs).absolute())
