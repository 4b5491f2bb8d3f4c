"""verl's configuration with the options of a run on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import OmegaConf

from policy.settings import TrainSettings
from policy.train.options.verl_config import compose
from policy.train.verl_options import hydra_overrides

CPU = {
    "model": "tiny",
    "device": "cpu",
    "batch_size": 2,
    "n": 4,
    "prompt_tokens": 200,
    "response_tokens": 300,
    "micro_batch_tokens": 8192,
    "tensor_parallel": 1,
    "sequence_parallel": 1,
    "trainer_gpus": 1,
    "rollout_gpus": 1,
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
