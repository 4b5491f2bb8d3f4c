"""Findings about the folders, verl's options, the model and the data of a training run; all are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coordinator.check import inputs, options, preflight
from coordinator.check.doctor.finding import Finding, note, of_problems
from coordinator.config import parts
from coordinator.config.settings import RunConfig
from policy.tracking import backends

AREA = "run"


def examine(config: RunConfig, run: Path) -> Iterator[Finding]:
    """Findings about a run. `run`: its folder, which does not exist yet."""
    yield from of_problems(
        AREA, "folders", preflight.local(config, run), f"{run.parent} and the image store can be written"
    )
    refused = options.problems(config, run)
    yield from of_problems(AREA, "options of verl", refused, "known to verl; stale samples are corrected")
    if trackers := config.train.trackers:
        yield from of_problems(AREA, "trackers", backends.missing(trackers), ", ".join(trackers))
    if problems := inputs.unbuilt(config):
        fields = problems[0].partition(":")[0]
        yield note(
            AREA, "model and data", f"{fields}: not built yet", parts.command(config.model_dump(mode="json"))
        )
        return
    if Path(config.train.model).expanduser().exists() or inputs.model(config):
        yield from of_problems(AREA, "model", inputs.model(config), f"{config.train.model} is there")
    else:
        yield note(AREA, "model", f"{config.train.model} is no folder here; it is a name on the hub")
    rows = f"{len(config.data.train) + len(config.data.test)} files, every row and image read"
    yield from of_problems(AREA, "data", inputs.data(config), rows)
