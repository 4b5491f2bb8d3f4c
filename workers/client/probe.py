"""Checks whether a Redis can be the queue of a run, with the clients and commands that the queue uses.

A server may answer PING and still be unusable: a read-only replica, a node of a Redis Cluster, a user without
the rights, a full disk. Invariants: keys that are written have names of their own and are removed; keys of
the queue are not changed; no message holds a password.
"""

from __future__ import annotations

import uuid
from typing import Any

import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from workers.broker.keys import queue_lists
from workers.errors import ConfigError
from workers.queues import QUEUES
from workers.redis_client import CHECK_TIMEOUT_S, connect_redis
from workers.redis_script import Script
from workers.redis_url import address
from workers.settings import REDIS_ENV, QueueSettings

FIELD = f"queue.redis_url (or {REDIS_ENV})"
PIDBOX = "celery.pidbox"
_CURE = "start it, correct the address, or leave it out and one is started for the run"
_RIGHTS = "give its user the rights that ops/redis/users.acl lists"
PROBE = Script("workers.broker.scripts", "probe")


def problems(settings: QueueSettings, serves: bool = False) -> list[str]:
    """What is wrong with the Redis of `settings`, each with what to do. Takes some seconds.

    `serves`: workers will consume with the same user.
    """
    try:
        url = settings.url
    except ConfigError as error:
        return [str(error)]
    where = address(url)
    try:
        with _connect(url) as client:
            client.ping()
            found = _kind(client) or _commands(client, serves) or (_channels(client) if serves else [])
        found = found or _as_workers(url)
    except (RedisError, OSError) as error:
        found = [_refusal(error, url)]
    return [f"{FIELD}: {where} {problem}" for problem in found]


def evicts(settings: QueueSettings) -> str:
    """The problem if the server may evict keys; empty if it does not, or does not say. Raises
    `redis.RedisError`.
    """
    with _connect(settings.url) as client:
        policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ""
    return f"maxmemory-policy is {policy}; set it to noeviction, or requests are lost"


def _connect(url: str) -> redis.Redis:
    return connect_redis(url, CHECK_TIMEOUT_S, decode=True)


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    try:
        found: Any = client.info(section)
    except NoPermissionError:  # the user has no permission for INFO; the commands are tried anyway
        return {}
    return dict(found)


def _kind(client: redis.Redis) -> list[str]:
    """The problem of a server that is not a single primary."""
    mode = _info(client, "server").get("redis_mode")
    if mode == "sentinel":
        return ["is a Sentinel, which holds no data; write the address of the primary that it monitors"]
    if mode == "cluster" or _info(client, "cluster").get("cluster_enabled"):
        return [
            "is a node of a Redis Cluster, over which the keys of the queue would be spread; name a single "
            "server (cluster-enabled no)"
        ]
    about = _info(client, "replication")
    if about.get("role") == "slave":
        primary = f"{about.get('master_host')}:{about.get('master_port')}"
        return [f"is a replica of {primary}, which takes no requests; write the address of the primary"]
    return []


def _commands(client: redis.Redis, serves: bool) -> list[str]:
    prefix = f"llmi:probe:{uuid.uuid4().hex}:"
    lists = [key for queue in QUEUES for key in queue_lists(queue)]
    failed = PROBE(client, arguments=[prefix, int(serves), *lists])
    if failed:
        named = [
            (command, key.replace(prefix, "llmi:").partition("\x06")[0], why) for command, key, why in failed
        ]
        return list(dict.fromkeys(_failure(*one) for one in named))[:3]
    with client.pipeline(transaction=True) as pipeline:
        pipeline.lpush(f"{prefix}l", "1")
        pipeline.expire(f"{prefix}l", 5)
        pipeline.execute()
    if serves:
        client.blpop([f"{prefix}l"], timeout=1)
    client.delete(f"{prefix}l")
    client.xread({f"{prefix}x": "0"}, count=1)
    next(iter(client.scan_iter("llmi:worker:*")), None)
    return []


def _failure(command: str, key: str, text: str) -> str:
    if "NOPERM" in text or "permission" in text.lower() or "ACL" in text:
        return f"does not let its user run {command} on {key}; {_RIGHTS}"
    if "WRONGTYPE" in text:
        return f"holds something else under the key {key}; use a database of its own, such as /1 in the URL"
    if "nknown" in text:
        return f"does not know the command {command}; update the server to Redis 7 or Valkey"
    return f"refuses {command}: {text.partition(' script:')[0]}; look at its log"


def _channels(client: redis.Redis) -> list[str]:
    """The problem with Celery's channels, by which a dashboard inspects workers, and with their bindings."""
    database = client.connection_pool.connection_kwargs.get("db", 0)
    name = f"/{database}.{PIDBOX}"
    bindings = f"_kombu.binding.{PIDBOX}"
    try:
        client.srem(bindings, "llmi-probe")  # no member
    except NoPermissionError:
        return [f"does not let its user run SREM on {bindings}; {_RIGHTS}"]
    try:
        client.publish("celery.llmi-probe", "")  # no subscriber
        with client.pubsub() as channel:
            channel.subscribe(name)
            channel.get_message(timeout=CHECK_TIMEOUT_S)
    except NoPermissionError:
        return [f"does not let its user publish and subscribe to {name}; {_RIGHTS}"]
    return []


def _as_workers(url: str) -> list[str]:
    """The problem if kombu, which workers use to connect, does not reach the server."""
    from kombu import Connection
    from kombu.exceptions import OperationalError

    options = {"socket_timeout": CHECK_TIMEOUT_S, "socket_connect_timeout": CHECK_TIMEOUT_S}
    try:
        with Connection(url, transport_options=options) as connection:
            connection.default_channel.client.ping()
    except (OperationalError, ValueError) as error:
        return [f"is not reached by Celery ({type(error).__name__}); write the URL as redis://host:6379/0"]
    return []


def _refusal(error: Exception, url: str) -> str:
    text = str(error)
    if isinstance(error, BusyLoadingError) or "LOADING" in text:
        return "is loading its data; wait until it has"
    if isinstance(error, AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text:
        return "wants another user or password; put them into the URL, as redis://user:password@host:6379/0"
    if "DB index" in text or "SELECT is not allowed" in text:
        return f"has no database {url.partition('?')[0].rpartition('/')[2]}; name a lower one"
    if isinstance(error, NoPermissionError):
        return f"does not let its user do what the queue needs ({text}); {_RIGHTS}"
    if isinstance(error, OutOfMemoryError):
        return "has no memory left; raise its maxmemory, or name another"
    if "DENIED" in text:
        return "is in protected mode, and answers its own machine only; give it a password"
    if "MISCONF" in text:
        return "cannot write its data to disk and takes no requests; make room, or look at its log"
    if "NOREPLICAS" in text:
        return "has not enough replicas to accept a write; repair them, or lower min-replicas-to-write"
    if "READONLY" in text:
        return "is a replica, which takes no requests; write the address of the primary"
    if isinstance(error, ResponseError):
        return f"refuses what the queue needs ({text}); check its log and its user's permissions"
    return f"does not answer: no Redis answers at that address ({type(error).__name__}); {_CURE}"
