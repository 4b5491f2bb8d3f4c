"""Checks of the model and the data of a run."""

from __future__ import annotations

from pathlib import Path

from coordinator.config import parts
from coordinator.config.settings import RunConfig, ServiceConfig
from policy.data.checked_images import Progress
from workers.errors import ConfigError, InfrastructureFault


def unbuilt(config: ServiceConfig) -> list[str]:
    """Parts of the demo that the configuration names and that are not built yet, in one line."""
    document = config.model_dump(mode="json")
    fields = sorted(parts.missing(document), reverse=True)
    if not fields:
        return []
    return [
        f"{', '.join(fields)}: parts of the demo that are not built; run `{parts.command(document)}`, which "
        "builds them, or name your own"
    ]


def model(config: RunConfig) -> list[str]:
    """The problem when a local model is missing. A hub id is left to the trainer."""
    path = Path(config.train.model)
    local = config.train.model.startswith((".", "/", "~")) or path.exists()
    if local and not (path.expanduser() / "config.json").is_file():
        return [
            f"train.model: {path} holds no config.json; name a model folder or a hub id such as Qwen/Qwen3-4B"
        ]
    return []


def data(config: RunConfig, progress: Progress | None = None) -> list[str]:
    """The first problem of each data file, after reading every row and validating every image."""
    fields: dict[str, str] = {}
    for field, files in (("data.train", config.data.train), ("data.test", config.data.test)):
        for file in files:
            fields.setdefault(file, field)
    return [
        f"{field}: {problem}"
        for file, field in fields.items()
        for problem in _data_file(config, file, progress)
    ]


def _data_file(config: RunConfig, file: str, progress: Progress | None) -> list[str]:
    from policy.data.checked_images import check as check_images
    from policy.data.dataset import load_rows

    try:
        rows = load_rows(file)
    except ConfigError as error:
        return [str(error)]
    shown = [row for row in rows if row.images]
    if config.train.modality == "text" and shown:
        return [
            f"{file} has rows with images, and train.modality is text; train a model that reads images, with "
            "train.modality vl, or name a file without images"
        ]
    most = config.train.max_input_images
    if crowded := [row for row in shown if len(row.images) > most]:
        first = crowded[0]
        return [
            f"{file}: row {first.index}: has {len(first.images)} images, and train.max_input_images is "
            f"{most}; raise it, or leave out images ({len(crowded)} such rows)"
        ]
    try:
        problems = check_images([image for row in shown for image in row.images], progress)
    except InfrastructureFault as fault:
        return [f"{file}: its images cannot be checked: {fault.detail}; `llmi doctor` checks the jail"]
    more = f" ({len(problems) - 1} more images of this file)" if len(problems) > 1 else ""
    return [f"{problems[0]}{more}"] if problems else []
