"""The configuration of a run: a YAML file, checked as a whole and resolved into the file of all processes.

Invariants:
- An unknown key is refused with the nearest valid one.
- Every error is a `ConfigError` with file, field and what to do.
- The resolved file holds no secret (`Settings` refuse them); `workers.settings.section` returns its sections.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from coordinator.config import files, parts
from coordinator.config.errors import explain
from coordinator.config.overrides import apply
from coordinator.config.pools import WorkerSettings
from evaluation.settings import AuthorSettings, RubricSettings
from policy.settings import TrainSettings
from policy.sft.settings import SftSettings
from rewards.settings import JudgeSettings, RewardSettings
from workers.errors import ConfigError
from workers.providers import registry as providers
from workers.settings import (
    REDIS_ENV,
    BlobSettings,
    LocalPath,
    MetricsSettings,
    QueueSettings,
    Settings,
    ToolSettings,
)

RAY_ENV = "RAY_ADDRESS"
_LONGEST_NAME = 100  # characters; a folder name may have 255, and suffixes are appended
CONFIG_FILE, AGAIN_FILE = "config.json", "config.yaml"


class DataSettings(Settings):
    """The data of a training run: Parquet files in the LLM-I schema."""

    train: tuple[LocalPath, ...] = Field(min_length=1)
    """One file or a list. Rows with and without images may be mixed."""
    test: tuple[LocalPath, ...] = ()
    """Test files, which `train.evaluate_every` evaluates. verl reads them in any case; without one, the first
    of `train`."""

    @field_validator("train", "test", mode="before")
    @classmethod
    def _several(cls, files: object) -> object:
        return (files,) if isinstance(files, str) else files


class RaySettings(Settings):
    """The Ray that is started for a run. `RAY_ADDRESS` names a cluster instead, and none of this applies."""

    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs, more than the workers' pools declare; null: as many as the machine has. A CPU run has at
    least 16 beside its workers', for verl's actors."""
    object_store_mb: int | None = Field(default=None, ge=100)
    """MiB of the object store; null: Ray's own default, a share of the machine's memory."""


class ServiceConfig(Settings):
    """The configuration of workers and their clients: every section but those of a training run.

    It is enough for evaluations, single documents and nodes that join.
    """

    name: str = ""
    """Name of the run and of its folder: letters, digits, dots, dashes and underscores, at most 100. By
    default the command chooses one."""
    queue: QueueSettings = QueueSettings()
    """The broker, and how requests are delivered."""
    blobs: BlobSettings = BlobSettings()
    """The store of images."""
    tools: ToolSettings = ToolSettings()
    """The four tools."""
    reward: RewardSettings = RewardSettings()
    """How verdicts become a reward."""
    judges: JudgeSettings = JudgeSettings()
    """The two judges of a document."""
    author: AuthorSettings = AuthorSettings()
    """The model that writes documents outside of training."""
    rubric: RubricSettings = RubricSettings()
    """The judge of benchmark criteria."""
    workers: WorkerSettings = WorkerSettings()
    """The pools of workers that a run keeps on its Ray cluster."""
    metrics: MetricsSettings = MetricsSettings()
    """Where Prometheus finds metrics."""

    @field_validator("name")
    @classmethod
    def _a_folder_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"{name!r} cannot be a folder name; use letters, digits, dots, dashes and underscores"
            )
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"is longer than {_LONGEST_NAME} characters; shorten it")
        return name

    @model_validator(mode="after")
    def _known_providers(self) -> Self:
        providers.of_tools(self.tools)
        return self

    @property
    def external_redis(self) -> bool:
        """Whether a Redis is named; else one is started for the run."""
        return bool(os.environ.get(REDIS_ENV)) or "redis_url" in self.queue.model_fields_set

    def save(self, run: Path) -> None:
        """Write `config.json` into the run's folder, for its processes, with the addresses that they use."""
        (run / CONFIG_FILE).write_text(
            json.dumps(self.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8"
        )


class RunConfig(ServiceConfig):
    """The configuration of a training run."""

    train: TrainSettings
    """The GRPO run."""
    data: DataSettings
    """The data of the run."""
    sft: SftSettings = SftSettings()
    """Supervised training before it."""
    ray: RaySettings = RaySettings()
    """The Ray that is started for the run."""

    def save_yaml(self, run: Path) -> None:
        """Write `config.yaml` into the run's folder: the configuration with all defaults, to read and to run
        again. The address of the embedded Redis is left out, since the next run starts its own.
        """
        document = self.model_dump(mode="json")
        if "redis_url" not in self.queue.model_fields_set:
            del document["queue"]["redis_url"]
        (run / AGAIN_FILE).write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    @model_validator(mode="after")
    def _one_kind_of_model(self) -> RunConfig:
        if self.reward.vl != (self.train.modality == "vl"):
            raise ValueError(
                f"reward.vl must be {str(not self.reward.vl).lower()} when train.modality is "
                f"{self.train.modality}; the published weights of the text judge differ"
            )
        return self

    @model_validator(mode="after")
    def _time_for_code(self) -> RunConfig:
        budget_s, timeout_s = self.tools.code.budget_s, self.train.rollout_timeout_s
        if budget_s >= timeout_s:
            raise ValueError(
                f"tools.code.budget_s {budget_s:g} must be less than train.rollout_timeout_s {timeout_s:g}, "
                "or slow code would mask its own document; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _evaluated_files(self) -> RunConfig:
        train, budget_s = self.train, self.tools.code.budget_s
        if train.evaluate_every and not self.data.test:
            raise ValueError(
                f"train.evaluate_every is {train.evaluate_every}, and data.test names no file to evaluate; "
                "name one, or set train.evaluate_every: 0"
            )
        if train.evaluate_every and budget_s >= train.evaluate_timeout_s:
            raise ValueError(
                f"train.evaluate_timeout_s {train.evaluate_timeout_s:g} must be more than "
                f"tools.code.budget_s {budget_s:g}, or slow code would mask its own document; raise it"
            )
        return self


def load(path: str | Path, overrides: Mapping[str, object] | None = None) -> RunConfig:
    """Read and check a run's YAML file, or a shipped one by name. `overrides`: values by dotted key."""
    return _checked(RunConfig, *_read(path, overrides), overrides or {})


def load_services(path: str | Path, overrides: Mapping[str, object] | None = None) -> ServiceConfig:
    """As `load`, for a file with or without the sections of a training run."""
    raw, source = _read(path, overrides)
    model = RunConfig if "train" in raw else ServiceConfig
    return _checked(model, raw, source, overrides or {})


def _read(path: str | Path, overrides: Mapping[str, object] | None) -> tuple[dict, str]:
    raw, source = files.read(path)
    try:
        return parts.resolved(apply(raw, overrides or {}), source), source
    except RecursionError as error:
        raise ConfigError(f"{source}: {files.TOO_DEEP}") from error


def check(raw: object, source: str) -> RunConfig:
    """A mapping as a `RunConfig`. Raises `ConfigError` with `source`, each wrong field and what to do."""
    return _checked(RunConfig, raw, source)


C = TypeVar("C", bound=ServiceConfig)


def _checked(model: type[C], raw: object, source: str, overrides: Collection[str] = ()) -> C:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(model, error, source, overrides))) from error
