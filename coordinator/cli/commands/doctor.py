"""`llmi doctor`: check this machine and a configuration, and print what to fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.options import Json, Runs
from coordinator.cli.output import output, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table


def doctor(
    config: Annotated[
        str, typer.Option(metavar="CONFIG", help="A YAML file, or the name of a shipped configuration.")
    ] = "demo",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Check what works on this machine with this configuration, and print how to fix the rest.

    Connects to Redis, Ray, judges and providers. Reads model and data of a training configuration. Exit code
    1 when something that the configuration needs fails.
    """
    with output(as_json) as (console, result):
        from rich.table import Table

        from coordinator.check.doctor import cuda, machine, reach, run
        from coordinator.check.doctor.finding import Finding, State
        from coordinator.config.settings import RunConfig, load_services
        from coordinator.host.hardware import detect

        settings = load_services(config)
        found: list[Finding] = []
        areas = [
            ("checking this machine", machine.examine(runs, settings.tools.code)),
            ("checking the parts of a GPU run", cuda.examine(settings, len(detect().gpus))),
            ("checking Redis, Ray, judges and providers", reach.examine(settings)),
        ]
        if isinstance(settings, RunConfig):
            folder = runs / (settings.name or stamp("run"))
            areas.append(("reading model and data", run.examine(settings, folder)))
        with Stages(make_console(stderr=True)) as stages:
            for number, (name, findings) in enumerate(areas):
                stages.step(name, number / len(areas))
                for finding in findings:
                    found.append(finding)
                    stages.step(name, number / len(areas), f"{finding.name}: {finding.state.value}")
        signs = {State.OK: "[green]✓[/]", State.NOTE: "[yellow]![/]", State.FAIL: "[bold red]✗[/]"}
        table = Table(box=None, show_header=False, padding=(0, 1))
        for finding in found:
            hint = f"\n[yellow]→ {_plain(finding.hint)}[/]" if finding.hint else ""
            row = f"{_plain(finding.detail)}{hint}"
            table.add_row(signs[finding.state], f"[dim]{finding.area}[/]", _plain(finding.name), row)
        print_table(console, table)
        failed = [finding for finding in found if finding.state is State.FAIL]
        noted = [finding for finding in found if finding.state is State.NOTE]
        summary = f"[bold red]{len(failed)} to fix[/]" if failed else "[bold green]ready[/]"
        print_line(console, f"{summary} for [bold]{_plain(config)}[/], {len(noted)} notes")
        result.update(config=config, ready=not failed, findings=[finding.document() for finding in found])
    if failed:
        raise typer.Exit(1)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
