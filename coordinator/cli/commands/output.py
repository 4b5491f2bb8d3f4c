"""The options, the output and the exit codes that all commands share.

Invariants:
- With --json, stdout is one JSON object and nothing else, whatever libraries and child processes print. An
  error is `{"error": {"kind": ..., "message": ..., "exit_code": ...}}`.
- Exit codes: 0 fine; 1 failed, a dry run found a problem, or a target is missed; 2 usage or configuration;
  128 + n stopped by signal n (130: Ctrl-C).
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
RUN_HELP = "A run's folder, or its name under --dir."


@contextlib.contextmanager
def output(as_json: bool) -> Iterator[tuple[Console, dict[str, Any]]]:
    """Yield a console, and a mapping that --json prints as one line on stdout when the block ends.

    With --json, file descriptor 1 is stderr inside the block, for libraries and child processes too.
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
    """The folder of a run, given its name under `runs` or its path."""
    named = runs / run
    return named if named.is_dir() else Path(run)


def stamp(prefix: str) -> str:
    """A folder name made of `prefix` and the time."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", prefix).strip("._-") or "run"
    return f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def plain(words: str) -> str:
    """Text of a model or of the web, safe to print: rich's markup escaped, control characters replaced."""
    from rich.markup import escape

    return escape("".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in words))


def fail(console: Console, message: str, code: int, kind: str, as_json: bool = False) -> NoReturn:
    """Print an error and exit. `kind`: `usage`, `configuration`, `interrupted` or `failed`."""
    console.print("[bold red]llmi: error[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_error(message, code, kind)
    sys.exit(code)


def print_error(message: str, code: int, kind: str) -> None:
    """Print the error object of --json on stdout."""
    error = {"kind": kind, "message": message, "exit_code": code}
    typer.echo(json.dumps({"error": error}, ensure_ascii=False))
