"""A run's claim on its Redis database, and the configuration it publishes there for workers that join.

Invariants: one run per database at a time, since two would take each other's requests; no worker there works
by other settings than the run's, since its verdicts and images would enter the rewards; a claim whose holder
died ends by itself after `CLAIM_S`; the published configuration holds no secret (`Settings` refuse them).
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

# Ours to renew or to give back only while nobody else has taken it.
RENEW = Script("coordinator.state", "renew_claim")
RELEASE = Script("coordinator.state", "release_claim")


class Claim:
    """`take`, `renew` at least every `CLAIM_S`, `release`. `heir`: this is the run of that name resumed, and
    takes over the claim of its coordinator that died on this machine."""

    def __init__(self, config: ServiceConfig, heir: bool = False):
        holder = {
            "name": config.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "id": uuid.uuid4().hex,
        }
        self._config = config
        self._heir = config.name if heir else ""
        self._value = json.dumps(holder)
        self._redis = connect_redis(config.queue.url)
        self._renewed = 0.0

    def take(self) -> None:
        """Claim the database and publish the configuration. Raises `ConfigError` while another run has it, or
        workers that joined it work by other settings.
        """
        if not self._claimed() and not self._inherited():
            raise ConfigError(held(self._config.queue) or f"{RUN_KEY} was just given back; try again")
        if problem := self._strangers():
            self.release()
            raise ConfigError(problem)
        self._redis.set(CONFIG_KEY, self._config.model_dump_json())
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Keep the claim; cheap to call often. A Redis that is away for a while is only logged. Raises
        `InfrastructureFault(WORKER_LOST)` when another run has taken the database, since this one was silent.
        """
        if time.monotonic() - self._renewed < CLAIM_S / 3:
            return
        self._renewed = time.monotonic()
        try:
            ours = RENEW(self._redis, [RUN_KEY], [self._value, round(CLAIM_S * 1000)])
            problem = "" if ours or self._claimed() else held(self._config.queue)
        except redis.RedisError as error:
            logger.warning("the claim on the Redis database was not renewed: %s", error)
            return
        if problem:
            raise InfrastructureFault(
                Cause.WORKER_LOST, f"this run was silent for {CLAIM_S:.0f} s and lost its claim; {problem}"
            )

    def release(self) -> None:
        """Give the database back. The configuration stays, for workers that join later."""
        try:
            RELEASE(self._redis, [RUN_KEY], [self._value])
        except redis.RedisError as error:
            logger.warning("the claim on the Redis database runs out by itself: %s", error)
        self._redis.close()

    def _claimed(self) -> bool:
        return bool(self._redis.set(RUN_KEY, self._value, nx=True, px=round(CLAIM_S * 1000)))

    def _inherited(self) -> bool:
        value: Any = self._redis.get(RUN_KEY)
        if value is None or not _left(json.loads(value), self._heir):
            return False
        RELEASE(self._redis, [RUN_KEY], [value])
        return self._claimed()

    def _strangers(self) -> str:
        """The problem, when workers of this database work by other settings."""
        ours = fingerprint(self._config.model_dump(mode="json"))
        others = [one for one in read_workers(self._config.queue.url) if one.ready and one.config != ours]
        if not others:
            return ""
        nodes = ", ".join(sorted({one.node for one in others}))
        return (
            f"queue.redis_url (or {REDIS_ENV}): {len(others)} workers (on {nodes}) were started there with "
            "other tools, judges, rewards or blobs than this run's; stop them with ops/stop_workers.sh and "
            "start them again once the run has begun, or give this run a database of its own"
        )


def forget(settings: QueueSettings) -> None:
    """End whatever claim there is. Raises `redis.RedisError`."""
    with connect_redis(settings.url) as client:
        client.delete(RUN_KEY)


def held(settings: QueueSettings, heir: str = "") -> str:
    """The problem, when a run holds the database that `heir` cannot take over; empty when none does. Raises
    `redis.RedisError`.
    """
    with connect_redis(settings.url) as client:
        value: Any = client.get(RUN_KEY)
    if value is None:
        return ""
    holder = json.loads(value)
    if _left(holder, heir):
        return ""
    return (
        f"queue.redis_url (or {REDIS_ENV}): the run {holder['name']!r} (on {holder['host']}, process "
        f"{holder['pid']}) uses this database; name another one, such as /1 at the end of the URL, or wait "
        f"{CLAIM_S:.0f} s if that run has died"
    )


def _left(holder: dict[str, Any], heir: str) -> bool:
    """Whether it is the claim of a dead process of this machine, left to the run `heir`."""
    here = holder["host"] == socket.gethostname()
    pid = int(holder["pid"])  # a container that was started again has the host and the pid of the one before
    dead = pid == os.getpid() or not psutil.pid_exists(pid)
    return bool(heir) and holder["name"] == heir and here and dead


def published(settings: QueueSettings) -> dict[str, Any] | None:
    """The configuration that a run, or whoever joined first, published. Raises `redis.RedisError`."""
    with connect_redis(settings.url) as client:
        value: Any = client.get(CONFIG_KEY)
    return None if value is None else json.loads(value)
