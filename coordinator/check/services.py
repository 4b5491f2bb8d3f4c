"""Checks of Redis, of Ray, and of the jail on this machine. No message shows a password."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from coordinator.config.settings import RAY_ENV, RunConfig, ServiceConfig
from workers.errors import ConfigError, InfrastructureFault
from workers.settings import REDIS_ENV, QueueSettings

RAY_TIMEOUT_S = 3.0


def redis_url(config: RunConfig) -> list[str]:
    """Problems of the form of the Redis URL, which every client of the queue must read alike."""
    try:
        _ = config.queue.url
    except ConfigError as error:
        return [str(error)]
    return []


def starts_workers(config: ServiceConfig) -> bool:
    """Whether workers of this run connect to Redis with the environment of this process. On a cluster that
    RAY_ADDRESS names they have the environment of its nodes.
    """
    return isinstance(config, RunConfig) and bool(config.workers.pools) and not os.environ.get(RAY_ENV)


def redis(queue: QueueSettings, starts_workers: bool = False) -> list[str]:
    """Problems of the named Redis as the queue of a run. `starts_workers`: and of the run's workers."""
    from redis import RedisError

    from workers.client import probe

    if found := probe.problems(queue, starts_workers):
        return found
    try:
        problem = probe.evicts(queue)
    except RedisError as error:  # it answered a moment ago
        problem = f"reading its settings failed with {type(error).__name__}; try again"
    return [f"{probe.FIELD}: {problem}"] if problem else []


def claimed(queue: QueueSettings, resuming: str = "") -> list[str]:
    """The problem when another run uses this Redis database. `resuming`: name of the run that is resumed."""
    from redis import RedisError

    from coordinator.state.claim import conflict

    try:
        problem = conflict(queue, resuming)
    except RedisError as error:  # it answered a moment ago
        problem = (
            f"queue.redis_url (or {REDIS_ENV}): reading its run failed with {type(error).__name__}; try again"
        )
    return [problem] if problem else []


def cluster(config: RunConfig) -> list[str]:
    """Problems between Ray and the other settings: a cluster needs a Redis that all its nodes reach, and a
    Ray that is started here needs more CPUs than the workers declare.
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
            f"ray.num_cpus: {cpus} leave no CPU for the trainer beside the {workers:g} that workers.pools "
            "declare (low times cpus); raise it, or leave it out"
        ]
    return []


def ray_head() -> list[str]:
    """The problem when the Ray cluster that RAY_ADDRESS names is not reached: Ray itself takes minutes to
    notice.
    """
    address = os.environ.get(RAY_ENV)
    if not address or address == "auto":  # Ray finds that one by itself
        return []
    try:
        url = urlsplit(address if "://" in address else f"ray://{address}")
        with socket.create_connection((url.hostname or "", url.port or 6379), RAY_TIMEOUT_S):
            return []
    except (OSError, ValueError) as error:
        return [
            f"{RAY_ENV}: {address} is not reached ({error}); start it (ray start --head), correct the "
            "address, or unset it and a Ray is started for the run"
        ]


def jail(config: RunConfig) -> list[str]:
    """Layers of the jail that are required and missing on this machine. Nothing is checked when the workers
    are on a cluster: each checks its own node.
    """
    if os.environ.get(RAY_ENV) or not any("code" in pool.queues for pool in config.workers.pools):
        return []
    from workers.sandbox import jail_report

    try:
        problem = jail_report.missing_layers(config.tools.code, jail_report.probe().layers)
    except InfrastructureFault as fault:
        problem = f"{fault.detail}; it needs Linux on x86_64 or aarch64, or pools that do not serve code"
    return [f"tools.code: {problem}"] if problem else []
