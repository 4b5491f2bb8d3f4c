"""Connections to Redis are made in one place, each with a time-out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from workers.redis_client import COMMAND_TIMEOUT_S, POLL_TIMEOUT_S, connect_redis, connect_redis_async

ROOT = Path(__file__).parents[3]
URL = "redis://:secret@127.0.0.1:6379/3"


def test_every_connection_has_a_time_out() -> None:
    for client, expected in (
        (connect_redis(URL), COMMAND_TIMEOUT_S),
        (connect_redis(URL, POLL_TIMEOUT_S), POLL_TIMEOUT_S),
        (connect_redis_async(URL, POLL_TIMEOUT_S, keep_open=True), POLL_TIMEOUT_S),
    ):
        options = client.connection_pool.connection_kwargs
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (expected, expected)
        assert options["db"] == 3


def test_a_password_replaces_that_of_the_url() -> None:
    assert connect_redis(URL).connection_pool.connection_kwargs["password"] == "secret"
    url = "redis://127.0.0.1:6379/0"
    assert connect_redis(url, password="other").connection_pool.connection_kwargs["password"] == "other"


def test_no_other_module_connects() -> None:
    folders = ("workers", "policy", "rewards", "evaluation", "coordinator", "llmi")
    command = ["grep", "-rlE", r"Redis\.from_url|redis\.Redis\(", "--include=*.py", *folders]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    product = [name for name in found.stdout.split() if "/scripts/" not in name]  # which cannot import it
    assert product == ["workers/redis_client.py"]
