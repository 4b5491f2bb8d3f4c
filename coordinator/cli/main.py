"""The `llmi` command: gathers the commands, turns errors into messages and exit codes.

Invariants: exit code 2 means wrong input (nothing was started), 1 something that failed, 128 + n a signal.
Starts fast: no heavy import up here, nor in `coordinator.cli.commands`.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated

import typer
from rich.logging import RichHandler

from coordinator.cli.commands import (
    blobs,
    doctor,
    evaluate,
    generate,
    metrics,
    redis,
    runs,
    serve,
    status,
    why,
    workers,
)
from coordinator.cli.commands.output import fail
from coordinator.console.terminal import make_console
from workers.errors import ConfigError, InfrastructureFault
from workers.process import interpreter

if TYPE_CHECKING:
    from rich.console import Console

ENTRY_POINTS = "llmi.commands"
PANEL = "Demo and benchmarks"  # of the commands of other packages

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trains language models to write illustrated documents: GRPO with tools and judges behind a queue.",
)
app.command()(runs.train)
app.command()(status.status)
app.command()(why.why)
app.command()(generate.generate)
app.command()(doctor.doctor)
app.add_typer(serve.app, name="serve")
app.add_typer(workers.app, name="workers")
app.add_typer(evaluate.app, name="evaluate")
app.command()(blobs.blobs)
app.command()(redis.redis)
app.command()(metrics.metrics)


def add_commands() -> None:
    """Add the commands that other packages register as entry points of the group `llmi.commands`.

    The name is the command's; `GROUP.NAME` puts it into a group of commands of this module. The value is a
    function or a `typer.Typer`.
    """
    groups = {info.name: info.typer_instance for info in app.registered_groups}
    for point in entry_points(group=ENTRY_POINTS):
        group, _, name = point.name.rpartition(".")
        to = groups.get(group) if group else app
        if to is None:
            raise ConfigError(f"entry point {point.name} of {ENTRY_POINTS}: there is no group {group!r}")
        command = point.load()
        if isinstance(command, typer.Typer):
            to.add_typer(command, name=name, rich_help_panel=PANEL)
        else:
            to.command(name, rich_help_panel=None if group else PANEL)(command)


add_commands()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmi {version('llmi')}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def _log_to(console: Console) -> None:
    """Warnings in colour on a terminal; elsewhere plain lines, since rich pads and wraps its own."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def main() -> None:
    """Entry point of the `llmi` command."""
    from coordinator.host.signals import Stopped

    interpreter.restart_if_needed()
    interpreter.set_up_process()
    console = make_console(stderr=True)
    _log_to(console)
    try:
        app()
    except ConfigError as error:
        fail(console, str(error), 2)
    except Stopped as stop:
        fail(console, f"stopped by {stop}; nothing it started is left", stop.exit_code)
    except (InfrastructureFault, RuntimeError, OSError) as error:
        fail(console, str(error), 1)
