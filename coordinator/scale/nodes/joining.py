"""Check and plan a node that joins the queues: Redis, configuration, hardware, queues and role.

Invariants: nothing is started or written; every problem names the option or variable and what to do, and
shows no password.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import redis

from coordinator.config.paths import placed
from coordinator.config.settings import ServiceConfig, load_services
from coordinator.host.hardware import Machine, detect
from coordinator.scale.nodes.needs import drain_s, lacking
from coordinator.scale.nodes.plan import Role, plan
from coordinator.scale.nodes.state import NodeState, Record
from coordinator.state import claim
from coordinator.state.published import parse_published
from workers.broker.registry import read_workers
from workers.client import probe as queue_probe
from workers.errors import ConfigError
from workers.redis_url import address, canonical
from workers.settings import REDIS_ENV, QueueSettings, Settings, fingerprint


class JoinPlan(Settings):
    """The checked plan of a node, ready to start. `publish`: its configuration replaces the one in Redis,
    which no worker uses.
    """

    record: Record
    config: ServiceConfig
    publish: bool


def prepare(
    *,
    redis_url: str,
    config: str,
    queues: Sequence[str],
    role: Role,
    node: str,
    machine: Machine | None = None,
) -> JoinPlan:
    """Resolve Redis and configuration, and plan. Sets LLMI_REDIS_URL in this process. Raises
    `ConfigError`."""
    given = _load_config(config) if config else None
    url = _resolve_url(redis_url, given)
    os.environ[REDIS_ENV] = url
    node = _checked_name(node)
    settings, publish = _choose_config(given, url)
    if problems := queue_probe.problems(settings.queue, serves=True):
        raise ConfigError("\n".join(problems))
    machine = machine or detect()
    what = plan(machine, settings, lacking(settings), queues, role)
    record = Record(
        node=node,
        redis=address(url),
        queues=tuple(queues),
        role=role,
        plan=what,
        ready_s=settings.workers.ready_s,
        drain_s=drain_s(settings, what.queues),
    )
    return JoinPlan(record=record, config=settings, publish=publish)


def locate(redis_url: str, node: str) -> tuple[NodeState, str]:
    """The state folder and the name of a node. Raises `ConfigError`."""
    return NodeState.of(_resolve_url(redis_url, None), _checked_name(node)), _checked_name(node)


def _checked_name(node: str) -> str:
    node = node or socket.gethostname()
    if not all(sign.isalnum() or sign in "._-" for sign in node):
        raise ConfigError(f"--node: {node!r}; use letters, digits, dots, dashes and underscores")
    return node


def _load_config(path: str) -> ServiceConfig:
    """The configuration of --config, with paths relative to the working directory made absolute."""
    config = load_services(path)
    sections = config.model_dump(include=set(ServiceConfig.model_fields), exclude_unset=True)
    return placed(ServiceConfig.model_validate(sections))


def _resolve_url(redis_url: str, given: ServiceConfig | None) -> str:
    url = redis_url or os.environ.get(REDIS_ENV, "")
    if not url and given is not None and "redis_url" in given.queue.model_fields_set:
        url = given.queue.redis_url
    if not url:
        raise ConfigError(
            f"no Redis is named: give --redis redis://HOST:6379/0, or set {REDIS_ENV}; `llmi redis` starts "
            "one"
        )
    try:
        return canonical(url)
    except ValueError as error:
        raise ConfigError(f"--redis (or {REDIS_ENV}): {error}") from None


def _choose_config(given: ServiceConfig | None, url: str) -> tuple[ServiceConfig, bool]:
    """The configuration of this node, and whether to publish it."""
    raw = _published_config(url)
    public = None if raw is None else parse_published(raw)
    config = given or public
    if config is None:
        raise ConfigError(
            "--config: none is given, and none is published in this Redis; name a YAML file or a shipped "
            "configuration, or start the run first"
        )
    publish = given is not None and (public is None or not same_settings(given, public))
    if publish:
        _refuse_conflicts(config, url)
    queue = config.queue.model_copy(update={"redis_url": address(url)})
    return config.model_copy(update={"queue": queue}), publish


def _refuse_conflicts(given: ServiceConfig, url: str) -> None:
    """Check that no worker of that Redis has other settings: an outcome must not depend on the worker."""
    queue = QueueSettings(redis_url=address(url))
    own = fingerprint(given.model_dump(mode="json"))
    others = sorted({one.node for one in read_workers(url) if one.ready and one.config != own})
    who = [f"workers on {', '.join(others)}"] if others else []
    if claim.conflict(queue):
        who.append("the run that uses this database")
    if who:
        raise ConfigError(
            f"--config: {' and '.join(who)} use other tools, judges, rewards or blobs than this "
            "configuration; leave --config out to join them, or stop them first (a killed worker stays "
            f"registered for {queue.lease_s:.0f} s)"
        )


def reachable_redis(redis_url: str) -> str:
    """The URL of the named Redis, after a check that it answers. Raises `ConfigError`."""
    url = _resolve_url(redis_url, None)
    os.environ[REDIS_ENV] = url
    _published_config(url)
    return url


def _published_config(url: str) -> dict[str, Any] | None:
    try:
        return claim.published(QueueSettings(redis_url=address(url)))
    except redis.AuthenticationError as error:
        raise ConfigError(
            f"--redis (or {REDIS_ENV}): {address(url)} wants another password; put it into the URL, "
            "as redis://:PASSWORD@host:6379/0"
        ) from error
    except redis.RedisError as error:
        raise ConfigError(
            f"--redis (or {REDIS_ENV}): no Redis answers at {address(url)} "
            f"({type(error).__name__}); start it, or correct the address"
        ) from error


def same_settings(one: ServiceConfig, other: ServiceConfig) -> bool:
    """Whether workers with either configuration do the same."""
    return fingerprint(one.model_dump(mode="json")) == fingerprint(other.model_dump(mode="json"))
