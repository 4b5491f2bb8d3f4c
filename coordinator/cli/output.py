"""The output and the exit codes of all commands.

Invariants:
- With --json, stdout is one JSON object and nothing else, whatever libraries and child processes print. An
  error is `{"error": {"kind": ..., "message": ..., "exit_code": ...}}`.
- Exit codes: 0 success; 1 failed, a dry run found a problem, or a target is missed; 2 usage or configuration;
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
from typing import Any, NoReturn

import typer
from rich.console import Console

from coordinator.console.terminal import make_console, print_line


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
    print_line(console, message, markup=False)
    if as_json:
        print_error(message, code, kind)
    sys.exit(code)


def print_error(message: str, code: int, kind: str) -> None:
    """Print the error object of --json on stdout."""
    error = {"kind": kind, "message": message, "exit_code": code}
    typer.echo(json.dumps({"error": error}, ensure_ascii=False))
