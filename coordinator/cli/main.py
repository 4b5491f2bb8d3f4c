"""The `llmi` command: gather the commands, turn errors into messages and exit codes.

Exit codes are listed in `coordinator.cli.output`. Invariant: starts fast, so nothing heavy is
imported here, nor at the top of the modules in `coordinator.cli.commands`.
"""

from __future__ import annotations

import signal
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from coordinator.cli import verbosity
from coordinator.cli.commands import (
    blobs,
    doctor,
    evaluate,
    export,
    generate,
    metrics,
    redis,
    runs,
    serve,
    sft,
    train,
    why,
    workers,
)
from coordinator.cli.output import fail, print_error
from coordinator.console.terminal import make_console
from workers.errors import ConfigError, InfrastructureFault
from workers.process import interpreter

ENTRY_POINTS = "llmi.commands"
INTERRUPTED = 128 + signal.SIGINT
PANEL = "Demo and benchmarks"  # of the commands of other packages

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trains language models to write illustrated documents: GRPO with tools and judges behind a queue.",
)
app.command()(train.train)
app.command()(sft.sft)
app.add_typer(runs.app, name="runs")
app.command()(runs.status)
app.command()(runs.report)
app.command()(why.why)
app.command()(generate.generate)
app.command()(export.export)
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
verbosity.add_options(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmi {version('llmi')}")
        raise typer.Exit


@app.callback()
def options(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: verbosity.Verbose = False,
    quiet: verbosity.Quiet = False,
) -> None:
    """Options before the command."""
    verbosity.apply(verbose, quiet)


def main() -> None:
    """Entry point of the `llmi` command."""
    from coordinator.host.signals import Stopped

    interpreter.restart_if_needed()
    interpreter.set_up_process()
    console = make_console(stderr=True)
    verbosity.configure_logging(console)
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except ConfigError as error:
        fail(console, str(error), 2, "configuration", as_json)
    except Stopped as stop:
        message = f"stopped by {stop}; nothing it started is left"
        fail(console, message, stop.exit_code, "interrupted", as_json)
    except (KeyboardInterrupt, typer.Abort):
        fail(console, "stopped by SIGINT", INTERRUPTED, "interrupted", as_json)
    except typer.TyperException as error:
        from typer import rich_utils

        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # every one is a ClickException
        if as_json:
            print_error(error.format_message(), error.exit_code, "usage")
        sys.exit(error.exit_code)
    except (InfrastructureFault, RuntimeError, OSError) as error:
        fail(console, str(error), 1, "failed", as_json)
    except Exception as error:
        if as_json:
            print_error(f"{type(error).__name__}: {error}", 1, "failed")
        raise
    if code == INTERRUPTED and as_json:
        print_error("stopped by SIGINT", INTERRUPTED, "interrupted")
    sys.exit(code or 0)
