"""Common parts of the benchmarks that train the demo's tiny policy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError
from rich.console import Console

from coordinator.config.settings import RAY_ENV
from llmi.demo.build import Parts as Built
from llmi.demo.build import build, cache_folder
from workers.errors import ConfigError
from workers.settings import REDIS_ENV, Settings

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Parts:
    """The demo's parts: the policy, and the prompts to train on."""

    policy: Path
    prompts: Path


def measured_run(parts: Parts) -> dict[str, object]:
    """What every benchmark sets in the demo's configuration, by dotted field: nothing runs beside training,
    and the benchmark starts the workers."""
    return {
        "train.model": str(parts.policy),
        "train.epochs": 1000,
        "train.in_order": False,
        "train.rollout_timeout_s": 600,
        "train.save_every": 0,
        "train.evaluate_every": 0,
        "train.trackers": [],
        "train.pictures_every": 0,
        "data.train": [str(parts.prompts)],
        "data.test": [str(parts.prompts)],
        "workers.pools": [],
    }


def build_parts(seed: int, console: Console) -> Parts:
    """The parts of the demo with this seed, built if the cache lacks them. Raises as `build`."""
    built = Built(cache_folder(), "text", seed)
    return Parts(build(built, console), built.prompts / "train.parquet")


def read_settings(kind: type[S], file: Path | None, command: str) -> S:
    """The settings in `file`, or the default ones. Raises `ConfigError` that names the field."""
    if file is None:
        return kind()
    try:
        return kind.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config: {file} cannot be read ({error}); name a YAML file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file}: {where}: {first['msg']}; see `{command} --dry-run`") from error


def refuse_shared_services() -> None:
    """Raise `ConfigError` if the environment names a Redis or a Ray."""
    for variable in (REDIS_ENV, RAY_ENV):
        if os.environ.get(variable):
            raise ConfigError(f"{variable} is set, and each run has a Redis and a Ray of its own; unset it")
