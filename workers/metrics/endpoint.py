"""The metrics endpoint of a process: HTTP on a free port, listed in Redis for Prometheus' service discovery.

Invariants:
- Serving runs in threads of its own and never delays the work.
- An endpoint is listed from its first heartbeat until one lease after its last, by Redis' clock.
- Nothing listed is secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import redis
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from workers.metrics.telemetry import FOLDER_ENV, registry
from workers.redis_client import COMMAND_TIMEOUT_S, connect_redis_async
from workers.redis_script import Script
from workers.settings import MetricsSettings, QueueSettings

logger = logging.getLogger(__name__)
TARGETS_KEY = "llmi:metrics"  # sorted set: endpoint as JSON -> Unix second at which it expires
WILDCARDS = ("0.0.0.0", "::", "")
BEATS_PER_LEASE = 5

RENEW_TARGET = Script("workers.metrics", "renew_target")
LIST_TARGETS = Script("workers.metrics", "list_targets")


@dataclass(frozen=True)
class Target:
    """One endpoint: `host:port` as Prometheus reaches it, and its labels."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def renew(self, pipeline: Any, lease_s: float) -> None:
        """Add to `pipeline` (blocking or asyncio) the command that lists this target for one more lease."""
        value = json.dumps({"address": self.address, "labels": dict(self.labels)}, sort_keys=True)
        RENEW_TARGET(pipeline, [TARGETS_KEY], [value, str(max(1, round(lease_s)))])


def targets(client: redis.Redis) -> list[Target]:
    """All listed endpoints. Raises `redis.RedisError`."""
    listed: Any = LIST_TARGETS(client, [TARGETS_KEY])
    return [Target(**json.loads(value)) for value in listed]


class Server(ThreadingMixIn, WSGIServer):
    """A small HTTP server with one thread per request."""

    daemon_threads = True

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Server6(Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:  # one line per scrape would fill the log
        pass


def serve(app: Callable[..., Iterable[bytes]], bind: str, port: int = 0) -> Server:
    """Serve a WSGI application from a thread. Raises `OSError` if the address cannot be bound."""
    kind = _Server6 if ":" in bind else Server
    server = make_server(bind, port, app, server_class=kind, handler_class=_QuietHandler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def serve_process(
    metrics: MetricsSettings, queue: QueueSettings, labels: Mapping[str, str], *extra: Collector
) -> Target:
    """Serve the metrics of this process and its pool, and those of `extra`, on a free port.

    Raises `OSError` if `metrics.bind` is not an address of this machine, or Redis cannot be reached.
    """
    if os.environ.get(FOLDER_ENV):
        served = CollectorRegistry()
        MultiProcessCollector(served)
    else:
        served = registry()
    for collector in extra:
        served.register(collector)
    server = serve(make_wsgi_app(served), metrics.bind)
    return Target(advertised(metrics.bind, server.server_port, queue), labels)


def advertised(bind: str, port: int, queue: QueueSettings) -> str:
    """`host:port` for other machines. For a wildcard `bind`, the address from which this one reaches
    Redis.
    """
    host = bind
    if bind in WILDCARDS:
        parts = urlsplit(queue.url)
        server = (parts.hostname or "127.0.0.1", parts.port or 6379)
        with socket.create_connection(server, COMMAND_TIMEOUT_S) as connection:
            host = str(connection.getsockname()[0])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def announce(target: Target, queue: QueueSettings) -> None:
    """Keep `target` listed until cancelled. Errors of Redis are logged and retried."""
    beat_s = queue.lease_s / BEATS_PER_LEASE
    client = connect_redis_async(queue.url)
    async with client:
        while True:
            pipeline = client.pipeline(transaction=False)
            target.renew(pipeline, queue.lease_s)
            try:
                await pipeline.execute()
            except (redis.RedisError, OSError) as error:
                logger.warning("metrics endpoint %s could not be listed: %s", target.address, error)
            await asyncio.sleep(beat_s)
