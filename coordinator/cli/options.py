"""Options and arguments that several commands share, and how a shell completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MAX_SEED = 2**32 - 1  # the limit of PYTHONHASHSEED and of `train.seed`


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the runs below --dir."""
    runs = Path(context.params.get("runs") or "runs").expanduser()
    return sorted(path.parent.name for path in runs.glob(f"{incomplete}*/config.yaml"))


def complete_config(incomplete: str) -> list[str]:
    """Names of the shipped configurations."""
    from coordinator.config.files import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's folder, or its name under --dir.", autocompletion=complete_run
    ),
]
Runs = Annotated[
    Path,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="Folder that holds the runs.",
        callback=Path.expanduser,  # a shell leaves --dir=~/runs as it is
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
Redis = Annotated[
    str,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis of the queues \\[default: LLMI_REDIS_URL; use that for a URL with a password, since "
        "every user of this machine can read arguments].",
    ),
]


def run_folder(run: str, runs: Path) -> Path:
    """The folder of a run, given its name under `runs` or its path."""
    named = runs / run
    return named if named.is_dir() else Path(run)
