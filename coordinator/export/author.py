"""`RUN@STEP` as the model of an author: exported once below the run, then reused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from coordinator.config.settings import AGAIN_FILE, load
from coordinator.console.terminal import Notify
from coordinator.export.export import Export, chosen_step, write
from evaluation.settings import AuthorSettings
from workers.errors import ConfigError

RUNS = Path("runs")
REFERENCE = re.compile(r"(?P<run>.+)@(?P<step>last|best|[0-9]+)")


def with_checkpoint(author: AuthorSettings, notify: Notify, runs: Path = RUNS) -> AuthorSettings:
    """`author` with the folder of the checkpoint that its model names, and with the system prompt of the run.

    Any other model, and the name of a model at an endpoint, stays as it is. Raises `ConfigError` or
    `ExportFailed`.
    """
    named = REFERENCE.fullmatch(author.model)
    if named is None or author.provider != "local" or Path(author.model).exists():
        return author
    run = next((place for place in (runs / named["run"], Path(named["run"])) if place.is_dir()), None)
    if run is None or not (run / AGAIN_FILE).is_file():
        raise ConfigError(
            f"author.model: {author.model}: there is no run {named['run']}; name a run of {runs}, or the "
            "folder of one"
        )
    train = load(run / AGAIN_FILE).train
    folder = _exported(run.absolute(), named["step"], notify)
    return author.model_copy(update={"model": str(folder), "system_prompt": train.system_prompt})


def _exported(run: Path, step: str, notify: Notify) -> Path:
    """The folder of a step, written unless it is there. It outlives its checkpoint."""
    if step.isdecimal() and _is_current(export := Export(run, int(step), merge_adapter=True)):
        return export.place
    export = Export(run, chosen_step(run, step), merge_adapter=True)
    if not _is_current(export):
        shutil.rmtree(export.place, ignore_errors=True)
        write(export, export.place, notify)
    return export.place


def _is_current(export: Export) -> bool:
    """Whether the export is there and not of weights that a resumed run has replaced."""
    saved = export.actor / "fsdp_config.json"
    return export.place.is_dir() and (
        not saved.exists() or saved.stat().st_mtime <= export.place.stat().st_mtime
    )
