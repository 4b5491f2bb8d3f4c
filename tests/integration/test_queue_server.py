"""The embedded Redis server: durability, binding, errors, end with its owner."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import redis

from coordinator.host.redis_server import EmbeddedRedis
from workers.errors import ConfigError


def test_data_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        os.kill(server.pid, signal.SIGKILL)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"value"
        assert server.url == url


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("bind")["bind"] == "127.0.0.1"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0, "it still listens after stop"


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            EmbeddedRedis(tmp_path, port).start()


def test_another_redis_on_the_port_is_not_used(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as other:
        with pytest.raises(ConfigError, match="did not start"):
            EmbeddedRedis(tmp_path / "two", other.port).start()
