"""verl's configuration with the options of a run on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cpu_train import CPU_TRAIN
from omegaconf import OmegaConf

from policy.settings import TrainSettings
from policy.train.options.verl_config import compose
from policy.train.verl_options import hydra_overrides

CPU = {
    **CPU_TRAIN,
    "batch_size": 2,
    "n": 4,
}


@pytest.fixture(scope="session")
def on_cpu() -> Callable[..., TrainSettings]:
    """`on_cpu(**changes)`: settings of two groups of four."""
    return lambda **changes: TrainSettings(**CPU | changes)


@pytest.fixture(scope="session")
def defaults() -> Any:
    """verl's configuration without options; composing it takes a second."""
    options = compose([])
    OmegaConf.set_struct(options, False)
    return options


@pytest.fixture
def composed(defaults, on_cpu, tmp_path) -> Callable[..., Any]:
    """`composed(settings, *options)`: verl's configuration for these settings, with `options` merged last."""

    def merge(settings: dict[str, Any], *options: str) -> Any:
        files = [tmp_path / "train.parquet"]
        own = hydra_overrides(on_cpu(**settings), run=tmp_path, data_train=files, data_test=files)
        return OmegaConf.merge(
            defaults, OmegaConf.from_dotlist([option.lstrip("+") for option in (*own, *options)])
        )

    return merge
