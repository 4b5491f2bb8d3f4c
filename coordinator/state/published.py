"""The configuration for commands that use workers of other commands."""

from __future__ import annotations

from typing import Any

import redis
from pydantic import ValidationError

from coordinator.config.errors import explain
from coordinator.config.paths import placed
from coordinator.config.settings import ServiceConfig, load_services
from coordinator.state.claim import published
from workers.errors import ConfigError
from workers.settings import REDIS_ENV


def service_config(path: str) -> ServiceConfig:
    """Load the configuration at `path`, or the one that workers published in the Redis of LLMI_REDIS_URL.

    Relative folders of a file are relative to the working directory. Raises `ConfigError`.
    """
    config = load_services(path) if path else ServiceConfig()
    if not config.external_redis:
        raise ConfigError(f"no Redis is named: set {REDIS_ENV} or queue.redis_url; `llmi redis` starts one")
    try:
        raw = published(config.queue)
    except ConfigError:
        raise
    except (redis.RedisError, ValueError) as error:  # the message of the latter may hold a password
        raise ConfigError(
            f"{REDIS_ENV} or queue.redis_url: no Redis answers there ({type(error).__name__}); start it, or "
            "correct the address"
        ) from None
    if path:
        return placed(config)
    if raw is None:
        raise ConfigError("no worker has published its configuration in this Redis; name it with --config")
    return parse_published(raw)


def parse_published(raw: dict[str, Any]) -> ServiceConfig:
    """The sections that workers need, from a published configuration. Raises `ConfigError`."""
    try:
        return ServiceConfig.model_validate({k: raw[k] for k in ServiceConfig.model_fields if k in raw})
    except ValidationError as error:
        why = explain(ServiceConfig, error, "the configuration published in this Redis")[0]
        raise ConfigError(f"{why}; install the same version of llmi, or give --config") from error
