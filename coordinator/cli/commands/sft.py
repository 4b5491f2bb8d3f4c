"""`llmi sft`: supervised training on documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli.options import Json, Runs, complete_config
from coordinator.cli.output import output, stamp
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line, print_table

if TYPE_CHECKING:
    from coordinator.sft.prepare import Prepared


def sft(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or the name of a shipped configuration.",
            autocompletion=complete_config,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Override a key, such as sft.min_reward=0.8. The value is YAML."
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="RUN|FILE",
            help="A run with good documents, or a Parquet file of conversations; may be repeated "
            "\\[default: sft.source].",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Choose the documents, check and print everything; start nothing."),
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the run \\[default: sft, file and time].")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run of this name, which died or was stopped.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train a model on documents before GRPO, on the GPUs or the CPUs of this machine.

    The documents are the best of a run, or conversations of a Parquet file. Model, engine and adapters are
    those of [b]train[/b], the rest is in [b]sft[/b]. [b]llmi export[/b] writes the result as a model folder.
    """
    with output(as_json) as (console, result):
        from coordinator.cli.commands.train import required_name
        from coordinator.config import overrides as override
        from coordinator.config.files import find
        from coordinator.config.settings import load

        changes = dict(override.parse(overrides or ()))
        if source:
            changes["sft.source"] = list(source)
        chosen = name or (required_name("") if resume else stamp(f"sft-{find(config).stem}"))
        settings = load(config, {**changes, "name": chosen})
        progress = make_console(stderr=True)
        if dry_run:
            from coordinator.sft.prepare import prepare

            with Stages(progress) as stages:
                prepared = prepare(settings, runs, stages.step, resumed=resume)
            _show_plan(console, prepared, result)
            return
        from coordinator.host.signals import StopSignals
        from coordinator.sft.launch import launch

        with StopSignals() as signals:
            summary = launch(settings, runs, progress, signals, resume)
        result.update(summary.model_dump(mode="json"))
        _show_documents(console, result)
        print_line(
            console,
            f"[bold green]done[/]: {summary.steps:,} steps, loss {summary.loss_first:.3f} → "
            f"{summary.loss_last:.3f}; `llmi export {runs / chosen}` writes the model",
        )


def _show_plan(console: Console, prepared: Prepared, result: dict[str, Any]) -> None:
    from coordinator.sft.summary import documents

    result.update(name=prepared.config.name, **documents(prepared), overrides=prepared.options)
    _show_documents(console, result)
    print_line(console, "# options of policy.sft.main", markup=False)
    for option in prepared.options:
        print_line(console, option, markup=False)


def _show_documents(console: Console, result: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("documents")
    table.add_column("number", justify="right")
    mean = result["reward_mean"]
    table.add_row("taken" + ("" if mean is None else f", mean reward {mean:.3f}"), f"{result['documents']:,}")
    for reason, count in result["left_out"].items():
        table.add_row(f"left out: {reason}", f"{count:,}")
    table.add_row("tokens of the documents", f"{result['tokens']:,}")
    table.add_row("tokens of the longest, with its prompt", f"{result['longest']:,}")
    table.add_row("passes", f"{result['epochs']:,}")
    table.add_row("steps", f"{result['steps']:,}")
    print_table(console, table)
