"""The embedded queue server: this machine needs no password, other machines do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from coordinator.host.redis_server import EmbeddedRedis
from workers.errors import ConfigError

LLMI = Path(sys.executable).with_name("llmi")
OTHER = "127.0.0.2"  # another address of this machine, like that of a network card


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_listens_on_loopback_only_by_default(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        assert reaches("127.0.0.1", server.port)
        assert not reaches(OTHER, server.port)


def test_another_address_needs_the_password(tmp_path):
    with EmbeddedRedis(tmp_path, bind=OTHER, password="hunter2") as server:
        for host in ("127.0.0.1", OTHER):
            with redis.Redis(host, server.port) as unauthenticated, pytest.raises(redis.AuthenticationError):
                unauthenticated.ping()
            with redis.Redis(host, server.port, password="hunter2") as friend:
                assert friend.ping()
        assert "hunter2" not in " ".join(psutil.Process(server.pid).cmdline())
    assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_without_a_password_it_listens_on_loopback_only(tmp_path):
    with pytest.raises(ConfigError, match="needs a password"):
        EmbeddedRedis(tmp_path, bind=OTHER)


def test_a_folder_serves_one_server_at_a_time(tmp_path):
    with EmbeddedRedis(tmp_path) as first:
        with pytest.raises(ConfigError, match="another server runs on this folder"):
            EmbeddedRedis(tmp_path).start()
        assert first.running
    with EmbeddedRedis(tmp_path) as next_one:
        assert next_one.running


def test_an_address_of_another_machine_is_refused_and_nothing_left(tmp_path):
    server = EmbeddedRedis(tmp_path, bind="192.0.2.1", password="hunter2")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1: the server cannot listen there"):
        server.start()
    assert not server.running


def test_the_command_prints_its_url_keeps_its_data_and_ends_on_a_signal(tmp_path):
    with EmbeddedRedis(tmp_path / "probe") as probe:
        port = probe.port
    command = [LLMI, "redis", "--dir", tmp_path / "data", "--port", str(port)]
    for expected in (None, b"kept"):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert f"redis://127.0.0.1:{port}/0" in process.stderr.readline()
            with redis.Redis("127.0.0.1", port) as client:
                assert client.get("key") == expected
                client.set("key", "kept")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert not reaches("127.0.0.1", port)


def test_the_command_requires_a_password_for_another_address(tmp_path):
    done = subprocess.run(
        [LLMI, "redis", "--dir", tmp_path / "data", "--host", OTHER],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "LLMI_REDIS_PASSWORD" in done.stderr
    assert not (tmp_path / "data").exists()


def test_start_returns_when_the_data_is_loaded(tmp_path):
    server = EmbeddedRedis(tmp_path)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.eval("for i = 1, 300000 do redis.call('SET', i, i) end", 0)
    server.stop()
    try:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 300_000
    finally:
        server.stop()


def test_a_server_that_died_restarts_on_its_port_with_its_data(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "x")
            client.waitaof(1, 0, 5_000)
        server.ensure_running()
        pid, url = server.pid, server.url
        os.kill(pid, signal.SIGKILL)
        psutil.Process(pid).wait(10.0)
        server.ensure_running()
        assert (server.running, server.url) == (True, url)
        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"x"
