"""`--verbose` and `--quiet` of every command, and where log records go."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from coordinator.console import terminal

PACKAGES = ("llmi", "coordinator", "evaluation", "rewards", "policy", "workers")
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors, no progress.")]


def configure_logging(console: Console) -> None:
    """Log warnings: in colour on a terminal, elsewhere as plain lines, since rich pads and wraps its own."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def apply(verbose: bool, quiet: bool) -> None:
    """Set what is logged and whether progress is shown. Raises `typer.BadParameter` for both options."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    for package in PACKAGES if verbose else ():
        logging.getLogger(package).setLevel(logging.INFO)
    if quiet:
        logging.getLogger().setLevel(logging.ERROR)
        terminal.hide_progress()


def add_options(app: typer.Typer) -> None:
    """Give every command of `app` and of its groups the options `-v` and `-q`."""
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _with_options(command.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        add_options(group.typer_instance)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(*args: Any, verbose: bool = False, quiet: bool = False, **options: Any) -> None:
        apply(verbose, quiet)
        command(*args, **options)  # `main` takes what a command returns for its exit code

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("verbose", Verbose), ("quiet", Quiet))
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *added]
    )
    return run
