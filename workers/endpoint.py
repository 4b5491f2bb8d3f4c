"""Where a process serves its metrics, and how Prometheus finds it: HTTP on a free port, its address in Redis.

Invariants: serving happens in threads of its own and never delays the work; an address is listed from its
first beat until one lease after its last, on Redis' own clock; nothing listed is a secret.
"""

from __future__ import annotations

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

from workers.settings import QueueSettings
from workers.telemetry import FOLDER_ENV, registry

logger = logging.getLogger(__name__)
TARGETS_KEY = "llmi:metrics"  # a sorted set: what serves metrics, by the second at which it is forgotten
WILDCARDS = ("0.0.0.0", "::", "")
CONNECT_S = 5.0

# KEYS: the targets. ARGV: one target as JSON, seconds to live.
RENEW = """
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], 2 * ARGV[2])
return 1
"""
LIST = """
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


@dataclass(frozen=True)
class Target:
    """One process that serves metrics: `host:port` as Prometheus reaches it, and what tells it apart."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def renew(self, pipeline: Any, lease_s: float) -> None:
        """Add to `pipeline` (blocking or asyncio) what keeps this target listed for one more lease."""
        value = json.dumps({"address": self.address, "labels": dict(self.labels)}, sort_keys=True)
        pipeline.eval(RENEW, 1, TARGETS_KEY, value, str(max(1, round(lease_s))))

    def as_http_sd(self) -> dict[str, Any]:
        """In the shape of Prometheus' HTTP service discovery."""
        return {"targets": [self.address], "labels": dict(self.labels)}


def targets(client: redis.Redis) -> list[Target]:
    """Every process that serves metrics now. Raises `redis.RedisError`."""
    listed: Any = client.eval(LIST, 1, TARGETS_KEY)
    return [Target(**json.loads(value)) for value in listed]


class Server(ThreadingMixIn, WSGIServer):
    """A small HTTP server with a thread for each request. `close` ends it."""

    daemon_threads = True

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Server6(Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:  # a line per scrape would fill the log
        pass


def serve(app: Callable[..., Iterable[bytes]], bind: str, port: int = 0) -> Server:
    """Serve a WSGI application from a thread. Raises `OSError` when the address cannot be had."""
    kind = _Server6 if ":" in bind else Server
    server = make_server(bind, port, app, server_class=kind, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def serve_own(bind: str, *extra: Collector) -> Server:
    """Serve this process's metrics (those of its pool's processes too) and `extra` on a free port."""
    if os.environ.get(FOLDER_ENV):
        served = CollectorRegistry()
        MultiProcessCollector(served)
    else:
        served = registry()
    for collector in extra:
        served.register(collector)
    return serve(make_wsgi_app(served), bind)


def advertised(bind: str, port: int, queue: QueueSettings) -> str:
    """`host:port` for other machines: a wildcard becomes the address from which this one reaches Redis."""
    if bind not in WILDCARDS:
        return f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
    parts = urlsplit(queue.url)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), CONNECT_S) as probe:
        return f"{probe.getsockname()[0]}:{port}"
