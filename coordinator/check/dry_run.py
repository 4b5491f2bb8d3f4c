"""`llmi train --dry-run`: the resolved configuration, and the problems that would stop a run on this machine.

Invariants:
- It needs no GPU, no network, no model and no data.
- It starts and writes nothing.
- Every option is composed with verl's own configuration, so that an option unknown to the installed verl is
  found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.syntax import Syntax

from coordinator.check import inputs, options, preflight
from coordinator.config.paths import placed
from coordinator.config.settings import RunConfig
from coordinator.console.terminal import print_line
from policy.tracking import backends


def resolve(config: RunConfig, runs: Path, console: Console, resume: bool = False) -> dict[str, Any]:
    """Print and return the resolved configuration, verl's options, and the problems of a real run here.

    `resume`: the run would be resumed.
    """
    run = runs / config.name
    document = config.model_dump(mode="json")
    data, overrides = placed(config, blobs=run).data, options.resolved(config, run)
    absent = [f"data: {file} does not exist" for file in (*data.train, *data.test) if not Path(file).exists()]
    problems = [
        *preflight.local(config, run, resume),
        *backends.missing(config.train.trackers),
        *(inputs.unbuilt(config) or [*preflight.missing(config), *absent]),
    ]
    _title(console, "configuration")
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:  # rich would fill every line up to the width
        print_line(console, text, markup=False)
    _title(console, "options of policy.train.main_ppo")
    for override in overrides:
        print_line(console, override, markup=False)
    if problems:
        _title(console, "before a real run")
        for problem in problems:
            print_line(console, f"- {problem}", markup=False)
    return {"name": config.name, "config": document, "overrides": overrides, "problems": problems}


def _title(console: Console, words: str) -> None:
    if console.is_terminal:
        console.rule(words)
    else:
        print_line(console, f"# {words}", markup=False)
