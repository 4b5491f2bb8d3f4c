"""The options of verl that a configuration becomes, checked with verl's own configuration."""

from __future__ import annotations

from pathlib import Path

from coordinator.config.paths import placed
from coordinator.config.settings import RunConfig
from policy.train.options import verl_config
from policy.train.verl_options import hydra_overrides
from workers.errors import ConfigError


def resolved(config: RunConfig, run: Path) -> list[str]:
    """The options of `policy.train.main_ppo`. Raises `ConfigError` with all that verl or a run refuses."""
    used = placed(config, blobs=run)
    data = used.data
    overrides = hydra_overrides(
        used.train,
        run=run,
        data_train=[Path(file) for file in data.train],
        data_test=[Path(file) for file in data.test or data.train[:1]],
    )
    verl_config.check(used.train, overrides)
    return overrides


def problems(config: RunConfig, run: Path) -> list[str]:
    """What `resolved` refuses, one a line."""
    try:
        resolved(config, run)
    except ConfigError as error:
        return str(error).splitlines()
    return []
