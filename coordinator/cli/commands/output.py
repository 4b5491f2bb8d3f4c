"""What every command does with its output: people read stderr or a terminal, programs read one line of JSON.

Invariants: with --json, stdout is one JSON object and nothing else, whatever libraries and children print;
a wrong input ends with exit code 2, a failure with 1, a signal with 128 + its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from coordinator.console.terminal import make_console

MAX_SEED = 2**32 - 1  # what PYTHONHASHSEED takes, and what `train.seed` allows
Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        metavar="DIR",
        help="Folder that holds the runs.",
        callback=Path.expanduser,  # a shell leaves --runs=~/runs as it is
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]


@contextlib.contextmanager
def output(as_json: bool) -> Iterator[tuple[Console, dict[str, Any]]]:
    """A console, and a mapping that is printed as the one line on stdout when JSON is asked for.

    Until then stdout is stderr, for every library and child process that might write to it.
    """
    result: dict[str, Any] = {}
    if not as_json:
        yield make_console(), result
        return
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        yield make_console(stderr=True), result
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)
    typer.echo(json.dumps(result, ensure_ascii=False))


def run_folder(run: str, runs: Path) -> Path:
    """The folder of a run that is named by its name under `runs`, or by its path."""
    named = runs / run
    return named if named.is_dir() else Path(run)


def stamp(prefix: str) -> str:
    """A folder name from `prefix` and the time."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", prefix).strip("._-") or "run"
    return f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def plain(words: str) -> str:
    """What a model or the web wrote, for a terminal: no markup of rich's, no characters that steer it."""
    from rich.markup import escape

    return escape("".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in words))


def fail(console: Console, message: str, code: int) -> NoReturn:
    """Say what went wrong and end the program."""
    console.print("[bold red]llmi: error[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
