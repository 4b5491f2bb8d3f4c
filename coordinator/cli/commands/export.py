"""`llmi export`: a checkpoint of a run as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.options import Json, Run, Runs, run_folder
from coordinator.cli.output import output
from coordinator.console.stages import Stages
from coordinator.console.terminal import make_console, print_line


def export(
    run: Run,
    step: Annotated[
        str,
        typer.Option(
            metavar="STEP", help="The step of a checkpoint, last, or best (by the reward of training)."
        ),
    ] = "last",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write \\[default: exports/step-STEP below the run]."),
    ] = None,
    merge_adapter: Annotated[
        bool,
        typer.Option(
            "--merge-adapter", help="Merge LoRA adapters into the weights; without it they stay beside them."
        ),
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder, with tokenizer, chat template and generation settings.

    The weights are bfloat16. Runs beside a training run, on the CPU, and needs memory for the whole model.
    [b]llmi generate[/b] and [b]llmi evaluate[/b] take RUN@STEP as a model and export it by themselves.
    """
    with output(as_json) as (console, result):
        from coordinator.export.export import Export, chosen_step, write
        from coordinator.host.signals import StopSignals

        folder = run_folder(run, runs)
        chosen = Export(folder, chosen_step(folder, step), merge_adapter)
        place = (out or chosen.place).expanduser()
        with StopSignals(), Stages(make_console(stderr=True)) as stages:
            write(chosen, place, stages.step)
        result.update(run=str(folder), step=chosen.step, folder=str(place))
        print_line(console, f"[bold green]done[/]: step {chosen.step} is in [bold]{place}[/]")
