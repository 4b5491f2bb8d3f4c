"""A run's claim on its Redis database, and the configuration that it publishes there for workers that join.

Invariants:
- One run uses a database at a time, since two would consume each other's requests.
- All its workers have the settings of the run, since their verdicts and images enter the rewards.
- A claim expires `CLAIM_S` after its run died.
- The published configuration holds no secret (`Settings` refuse them).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from typing import Any

import psutil
import redis

from coordinator.config.settings import ServiceConfig
from workers.broker.registry import read_workers
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.redis_client import connect_redis
from workers.redis_script import Script
from workers.settings import REDIS_ENV, QueueSettings, fingerprint

logger = logging.getLogger(__name__)
RUN_KEY, CONFIG_KEY = "llmi:run", "llmi:config"
CLAIM_S = 30.0

# Both change the key only while it holds this run's value.
RENEW = Script("coordinator.state", "renew_claim")
RELEASE = Script("coordinator.state", "release_claim")


class Claim:
    """One run's claim: `acquire`, `renew` at least every `CLAIM_S`, `release`.

    `resuming`: the run is resumed, and replaces the claim of its own coordinator that died on this machine.
    """

    def __init__(self, config: ServiceConfig, resuming: bool = False):
        holder = {
            "name": config.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "id": uuid.uuid4().hex,
        }
        self._config = config
        self._resuming = config.name if resuming else ""
        self._value = json.dumps(holder)
        self._redis = connect_redis(config.queue.url)
        self._renewed = 0.0

    def acquire(self) -> None:
        """Claim the database and publish the configuration. Raises `ConfigError` while another run holds it,
        or workers there have other settings.
        """
        if not self._set() and not self._replaced():
            raise ConfigError(conflict(self._config.queue) or f"{RUN_KEY} was just released; try again")
        if problem := self._other_workers():
            self.release()
            raise ConfigError(problem)
        self._redis.set(CONFIG_KEY, self._config.model_dump_json())
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Keep the claim; cheap to call often. A Redis that does not answer is only logged.

        Raises `InfrastructureFault(WORKER_LOST)` when the claim expired and another run has the database.
        """
        if time.monotonic() - self._renewed < CLAIM_S / 3:
            return
        self._renewed = time.monotonic()
        try:
            renewed = RENEW(self._redis, [RUN_KEY], [self._value, round(CLAIM_S * 1000)])
            problem = "" if renewed or self._set() else conflict(self._config.queue)
        except redis.RedisError as error:
            logger.warning("the claim on the Redis database was not renewed: %s", error)
            return
        if problem:
            raise InfrastructureFault(
                Cause.WORKER_LOST, f"this run was silent for {CLAIM_S:.0f} s and lost its claim; {problem}"
            )

    def release(self) -> None:
        """End the claim. The configuration stays, for workers that join later."""
        try:
            RELEASE(self._redis, [RUN_KEY], [self._value])
        except redis.RedisError as error:
            logger.warning("the claim on the Redis database expires, since it was not released: %s", error)
        self._redis.close()

    def _set(self) -> bool:
        return bool(self._redis.set(RUN_KEY, self._value, nx=True, px=round(CLAIM_S * 1000)))

    def _replaced(self) -> bool:
        value: Any = self._redis.get(RUN_KEY)
        if value is None or not _replaceable(json.loads(value), self._resuming):
            return False
        RELEASE(self._redis, [RUN_KEY], [value])
        return self._set()

    def _other_workers(self) -> str:
        """The problem when workers of this database have other settings."""
        own = fingerprint(self._config.model_dump(mode="json"))
        others = [one for one in read_workers(self._config.queue.url) if one.ready and one.config != own]
        if not others:
            return ""
        nodes = ", ".join(sorted({one.node for one in others}))
        return (
            f"queue.redis_url (or {REDIS_ENV}): {len(others)} workers (on {nodes}) were started there with "
            "other tools, judges, rewards or blobs than this run's; stop them with ops/stop_workers.sh and "
            "start them again after the run has started, or give this run a database of its own"
        )


def delete(settings: QueueSettings) -> None:
    """Delete any claim. Raises `redis.RedisError`."""
    with connect_redis(settings.url) as client:
        client.delete(RUN_KEY)


def conflict(settings: QueueSettings, resuming: str = "") -> str:
    """The problem when another run holds the database; empty when none does. Raises `redis.RedisError`.

    `resuming`: name of the run that is resumed, which may replace its own claim.
    """
    with connect_redis(settings.url) as client:
        value: Any = client.get(RUN_KEY)
    if value is None:
        return ""
    holder = json.loads(value)
    if _replaceable(holder, resuming):
        return ""
    return (
        f"queue.redis_url (or {REDIS_ENV}): the run {holder['name']!r} (on {holder['host']}, process "
        f"{holder['pid']}) uses this database; name another one, such as /1 at the end of the URL, or wait "
        f"{CLAIM_S:.0f} s if that run has died"
    )


def _replaceable(holder: dict[str, Any], resuming: str) -> bool:
    """Whether it is the claim of a dead coordinator of the run `resuming` on this machine."""
    here = holder["host"] == socket.gethostname()
    pid = int(holder["pid"])  # a restarted container has the host and the pid of the one before
    dead = pid == os.getpid() or not psutil.pid_exists(pid)
    return bool(resuming) and holder["name"] == resuming and here and dead


def published(settings: QueueSettings) -> dict[str, Any] | None:
    """The published configuration: of a run, or of the node that joined first. Raises `redis.RedisError`."""
    with connect_redis(settings.url) as client:
        value: Any = client.get(CONFIG_KEY)
    return None if value is None else json.loads(value)
