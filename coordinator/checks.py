"""Preflight: what would stop a run, found before anything is started.

Invariants: nothing is started, written or fetched; all problems are reported at once, each naming field, file
or variable and the cure; no message shows a password.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from coordinator.config import RunConfig
from rewards import settings as rewards_settings
from workers.errors import ConfigError
from workers.providers import preflight
from workers.settings import REDIS_ENV, QueueSettings

REDIS_TIMEOUT_S = 3.0


def check(config: RunConfig, run: Path) -> None:
    """Raises one `ConfigError` with all problems, one a line."""
    problems = [
        *folder(run),
        *missing(config),
        *data(config),
        *(redis(config.queue) if config.external_redis else []),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def missing(config: RunConfig) -> list[str]:
    """Keys, addresses and local folders that the chosen providers, judges and model need and that are not
    there.
    """
    return [*preflight.check(config.tools), *rewards_settings.check(config.judges), *model(config)]


def folder(run: Path) -> list[str]:
    """A run never writes into another one's folder."""
    if run.exists():
        return [f"{run}: this run folder exists already; choose another name with --name, or remove it"]
    return []


def model(config: RunConfig) -> list[str]:
    """A local model must be there; a hub id is left to the trainer."""
    path = Path(config.train.model)
    local = config.train.model.startswith((".", "/", "~")) or path.exists()
    if local and not (path.expanduser() / "config.json").is_file():
        return [
            f"train.model: {path} holds no config.json; name a model folder or a hub id such as Qwen/Qwen3-4B"
        ]
    return []


def data(config: RunConfig) -> list[str]:
    """Every row of every file is read and checked."""
    from policy.dataset import load_rows

    problems = []
    for field, files in (("data.train", config.data.train), ("data.test", config.data.test)):
        for file in files:
            try:
                load_rows(file)
            except ConfigError as error:
                problems.append(f"{field}: {error}")
    return problems


def redis(queue: QueueSettings) -> list[str]:
    """The Redis the user named must answer within `REDIS_TIMEOUT_S`."""
    from redis import Redis, RedisError

    parts = urlsplit(queue.url)
    where = f"{parts.hostname}:{parts.port or 6379}"
    try:
        client = Redis.from_url(
            queue.url, socket_connect_timeout=REDIS_TIMEOUT_S, socket_timeout=REDIS_TIMEOUT_S
        )
        with client:
            client.ping()
    except ValueError as error:
        return [f"queue.redis_url (or {REDIS_ENV}): {error}; give a URL such as redis://host:6379/0"]
    except RedisError as error:
        why = type(error).__name__
        return [
            f"queue.redis_url (or {REDIS_ENV}): no Redis answers at {where} ({why}); start it, correct the "
            "address, or name none and one is started for the run"
        ]
    return []
