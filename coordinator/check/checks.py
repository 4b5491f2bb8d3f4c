"""Preflight: what would stop a run, found before anything is started.

Invariants: nothing that stays is started or written, and nothing is fetched; all problems are reported at
once, each naming field, file or variable and the cure; no message shows a password.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from coordinator.config import parts
from coordinator.config.settings import RAY_ENV, RunConfig, ServiceConfig
from coordinator.state import resume as resuming
from policy.data.checked_images import Progress
from rewards import settings as rewards_settings
from workers.errors import ConfigError, InfrastructureFault
from workers.providers import registry as providers
from workers.settings import REDIS_ENV, QueueSettings
from workers.storage.cache import CACHE_ENV

HEAD_TIMEOUT_S = 3.0
MIB = 2**20
FREE_MIB = 512  # finds a disk that is full; what a real model's checkpoints take, nobody can tell before


def check(config: RunConfig, run: Path, resume: bool = False, progress: Progress | None = None) -> None:
    """Raises one `ConfigError` with all problems, one a line. `resume`: the run in this folder is to go
    on; `progress`: of the images of its data."""
    problems = [
        *surroundings(config, run, resume),
        *(unbuilt(config) or [*missing(config), *data(config, progress)]),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def surroundings(config: RunConfig, run: Path, resume: bool = False) -> list[str]:
    """What does not depend on model and data: folders, the jail, Ray and the Redis that the user named."""
    heir = config.name if resume else ""
    asked = config.external_redis and not address(config)
    outside = (redis(config.queue, serves(config)) or claimed(config.queue, heir)) if asked else []
    return [*local(config, run, resume), *jail(config), *outside, *head()]


def local(config: RunConfig, run: Path, resume: bool = False) -> list[str]:
    """The part of `surroundings` that asks nobody."""
    folders = [*(resumable(config, run) if resume else folder(run)), *blobs(config)]
    return [*folders, *address(config), *cluster(config)]


def address(config: RunConfig) -> list[str]:
    """The URL of the Redis that the user named has the form that every part of the queue reads."""
    try:
        _ = config.queue.url
    except ConfigError as error:
        return [str(error)]
    return []


def serves(config: ServiceConfig) -> bool:
    """Whether a run's own workers connect to Redis with the environment of this process: not on a cluster of
    the user's own, where workers have the environment of its nodes.
    """
    return isinstance(config, RunConfig) and bool(config.workers.pools) and not os.environ.get(RAY_ENV)


def resumable(config: RunConfig, run: Path) -> list[str]:
    """The run in this folder can go on with this configuration, and its folder be written."""
    return resuming.problems(config, run) or [f"--dir: {problem}" for problem in _unwritable(run)]


def unbuilt(config: ServiceConfig) -> list[str]:
    """A configuration of the demo names parts that only the demo builds: all that are missing in one line."""
    document = config.model_dump(mode="json")
    fields = sorted(parts.missing(document), reverse=True)
    if not fields:
        return []
    return [
        f"{', '.join(fields)}: parts of the demo that are not built; run `{parts.command(document)}`, which "
        "builds them, or name your own"
    ]


def missing(config: RunConfig) -> list[str]:
    """Keys, addresses and local folders that the chosen providers, judges and model need and that are not
    there.
    """
    return [*providers.check(config.tools), *rewards_settings.check(config.judges), *model(config)]


def folder(run: Path) -> list[str]:
    """A run never writes into another one's folder, and must be able to make its own."""
    if os.path.exists(run):  # says no, other than Path.exists, below a folder that may not be entered
        cures = "choose another name with --name, remove it, or go on with that run with --resume"
        return [f"{run}: this run folder exists already; {cures}"]
    return [f"--dir: {problem}" for problem in _unwritable(run)]


def cache(path: Path) -> list[str]:
    """Where `llmi demo` keeps what it builds."""
    return [f"{CACHE_ENV}: {problem}" for problem in _unwritable(path)]


def blobs(config: RunConfig) -> list[str]:
    """An image store in a folder of this machine; a relative one lies in the run's folder."""
    path = Path(config.blobs.url.removeprefix("file://"))
    return [f"blobs.url: {problem}" for problem in _unwritable(path)] if path.is_absolute() else []


def _unwritable(path: Path) -> list[str]:
    nearest = next(above for above in (path.absolute(), *path.absolute().parents) if os.path.exists(above))
    if not nearest.is_dir():
        return [f"{path} cannot be made: {nearest} is no folder; name another"]
    if not os.access(nearest, os.W_OK | os.X_OK):
        return [f"{path}: may not write in {nearest}; name another folder, or permit it"]
    free = shutil.disk_usage(nearest).free
    if free < FREE_MIB * MIB:
        return [
            f"{path}: {nearest} has {free // MIB} MiB free and a run needs {FREE_MIB}; make room, "
            "or name another folder"
        ]
    return []


def cluster(config: RunConfig) -> list[str]:
    """The Redis that is started for a run answers on this machine only; the Ray that is started for it must
    have more CPUs than its workers declare.
    """
    if os.environ.get(RAY_ENV):
        if config.external_redis:
            return []
        return [
            f"{RAY_ENV} names a cluster: name a Redis that all its nodes reach, by {REDIS_ENV} or "
            "queue.redis_url"
        ]
    cpus, workers = config.ray.num_cpus, sum(pool.low * pool.cpus for pool in config.workers.pools)
    if cpus is not None and workers >= cpus:
        return [
            f"ray.num_cpus: {cpus} leave the trainer nothing beside the {workers:g} that workers.pools take "
            "(low times cpus); raise it, or leave it out"
        ]
    return []


def jail(config: RunConfig) -> list[str]:
    """The layers that code must run under, tried here, where its workers will be: on a cluster of the user's
    own it is the workers that find out.
    """
    if os.environ.get(RAY_ENV) or not any("code" in pool.queues for pool in config.workers.pools):
        return []
    from workers.sandbox import client

    try:
        problem = client.lacking(config.tools.code, client.probe().layers)
    except InfrastructureFault as fault:
        problem = f"{fault.detail}; it needs Linux on x86_64 or aarch64, or pools that do not serve code"
    return [f"tools.code: {problem}"] if problem else []


def head() -> list[str]:
    """The Ray cluster that the user named must be open, else connecting to it takes minutes to fail."""
    address = os.environ.get(RAY_ENV)
    if not address or address == "auto":  # Ray finds that one by itself
        return []
    try:
        url = urlsplit(address if "://" in address else f"ray://{address}")
        with socket.create_connection((url.hostname or "", url.port or 6379), HEAD_TIMEOUT_S):
            return []
    except (OSError, ValueError) as error:
        return [
            f"{RAY_ENV}: {address} is not reached ({error}); start it (ray start --head), correct the "
            "address, or unset it and a Ray is started for the run"
        ]


def model(config: RunConfig) -> list[str]:
    """A local model must be there; a hub id is left to the trainer."""
    path = Path(config.train.model)
    local = config.train.model.startswith((".", "/", "~")) or path.exists()
    if local and not (path.expanduser() / "config.json").is_file():
        return [
            f"train.model: {path} holds no config.json; name a model folder or a hub id such as Qwen/Qwen3-4B"
        ]
    return []


def data(config: RunConfig, progress: Progress | None = None) -> list[str]:
    """Every row of every file is read and checked, and every image passes the image gate; of each file the
    first problem.
    """
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
            f"{file} has rows with images, and train.modality is text; train a model that sees, with "
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
        return [f"{file}: its images cannot be checked: {fault.detail}; `llmi doctor` looks at the jail"]
    more = f" ({len(problems) - 1} more images of this file)" if len(problems) > 1 else ""
    return [f"{problems[0]}{more}"] if problems else []


def redis(queue: QueueSettings, serves: bool = False) -> list[str]:
    """Why the Redis that the user named cannot be the queue of a run; `serves`: and of its workers."""
    from redis import RedisError

    from workers.client import probe as queue_probe

    if found := queue_probe.problems(queue, serves):
        return found
    try:
        problem = queue_probe.evicts(queue)
    except RedisError as error:  # it answered a moment ago
        problem = f"{type(error).__name__} when asked for its settings; try again"
    return [f"{queue_probe.FIELD}: {problem}"] if problem else []


def claimed(queue: QueueSettings, heir: str = "") -> list[str]:
    """A Redis that answers must not be in another run's use; `heir`: the run that is resumed."""
    from redis import RedisError

    from coordinator.state.claim import held

    try:
        problem = held(queue, heir)
    except RedisError as error:  # it answered a moment ago
        problem = (
            f"queue.redis_url (or {REDIS_ENV}): {type(error).__name__} when asked for its run; try again"
        )
    return [problem] if problem else []
