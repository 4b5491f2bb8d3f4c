"""`llmi train --dry-run`: the resolved configuration, and the problems that would stop a run on this machine.

Invariants:
- It needs no GPU, no network, no model and no data.
- It starts and writes nothing.
- Every option is composed with verl's own configuration, so that an option unknown to the installed verl is
  found.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.syntax import Syntax

from coordinator.check import inputs, preflight
from coordinator.config.paths import placed
from coordinator.config.settings import RunConfig
from coordinator.console.terminal import print_line
from policy.train.verl_options import hydra_overrides
from workers.errors import ConfigError


def resolve(config: RunConfig, runs: Path, console: Console, resume: bool = False) -> dict[str, Any]:
    """Print and return the resolved configuration, verl's options, and the problems of a real run here.

    `resume`: the run would be resumed.
    """
    run = runs / config.name
    document = config.model_dump(mode="json")
    used = placed(config, blobs=run)
    data = used.data
    overrides = hydra_overrides(
        used.train,
        run=run,
        data_train=[Path(file) for file in data.train],
        data_test=[Path(file) for file in data.test or data.train[:1]],
    )
    compose(overrides)
    absent = [f"data: {file} does not exist" for file in (*data.train, *data.test) if not Path(file).exists()]
    problems = [
        *preflight.local(config, run, resume),
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


def compose(overrides: Sequence[str]) -> None:
    """Build verl's configuration with these options, without importing verl. Raises `ConfigError`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("verl is not installed; install llmi with its extra cpu or gpu")
    tree = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    # Options that begin with hydra. are those of its own program.
    own = [option for option in overrides if not option.startswith("hydra.")]
    try:
        with hydra.initialize_config_dir(config_dir=str(tree), version_base=None):
            hydra.compose("ppo_trainer", overrides=own)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"verl {version('verl')} refuses the options: {error}") from error
