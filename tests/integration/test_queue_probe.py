"""The preflight check refuses a Redis that answers but is unusable for a run. All servers are real."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from places import REPOSITORY
from waiting import wait_until

from coordinator.check import preflight, services
from coordinator.config.settings import RunConfig
from coordinator.host.redis_server import EmbeddedRedis, _binary, _free_port
from coordinator.scale.nodes import joining
from workers.client import probe as queue_probe
from workers.errors import ConfigError
from workers.settings import REDIS_ENV, QueueSettings

ACL = REPOSITORY / "ops/redis/users.acl"
Server = Callable[..., int]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`server("--option", "value")` starts a server with these options and returns its port."""
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> int:
            port, folder = _free_port(), tmp_path / str(_free_port())
            folder.mkdir()
            command = [str(_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options]
            process = stack.enter_context(subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL))
            stack.callback(process.kill)
            with redis.Redis(port=port) as client:

                def answers() -> bool:
                    try:
                        return bool(client.ping())
                    except redis.AuthenticationError:
                        return True
                    except redis.ConnectionError:
                        return False

                wait_until(answers)
            return port

        yield start


@pytest.fixture(autouse=True)
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_ENV, raising=False)


def problems(port: int, database: int = 0, user: str = "", serves: bool = True) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REDIS_ENV, f"redis://{user}127.0.0.1:{port}/{database}")
        return queue_probe.problems(QueueSettings(), serves)


def asked(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True)


def test_a_usable_server_passes_and_nothing_is_left_in_it(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        assert problems(redis_server.port, database=1) == []
        assert client.info("keyspace") == {}


def test_a_node_of_a_cluster_is_refused(server: Server) -> None:
    port = server("--cluster-enabled", "yes", "--cluster-port", str(_free_port()))
    [problem] = problems(port)
    assert "Redis Cluster" in problem
    assert "name a single server" in problem
    assert problems(port, database=1) != []


def test_a_replica_is_refused_and_its_primary_named(server: Server) -> None:
    primary = server()
    replica = server("--replicaof", f"127.0.0.1 {primary}")
    [problem] = problems(replica)
    assert f"replica of 127.0.0.1:{primary}" in problem


def test_a_node_does_not_join_a_replica(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REDIS_ENV, f"redis://127.0.0.1:{server('--replicaof', f'127.0.0.1 {server()}')}/0")
    with pytest.raises(ConfigError, match="write the address of the primary"):
        joining.prepare(redis_url="", config="evaluate_demo", queues=["search"], role="all", node="n")


def test_a_primary_that_is_short_of_replicas_is_refused(server: Server) -> None:
    port = server("--min-replicas-to-write", "1")
    [problem, *_] = problems(port)
    assert "replicas" in problem


def test_a_database_that_does_not_exist_is_refused(server: Server) -> None:
    port = server("--databases", "2")
    assert problems(port, database=1) == []
    [problem] = problems(port, database=2)
    assert "has no database 2" in problem


def test_a_wrong_or_missing_password_is_reported_without_showing_it(server: Server) -> None:
    port = server("--requirepass", "secret")
    for user in ("", ":hunter2@", "me:hunter2@"):
        [problem] = problems(port, user=user)
        assert "wants another user or password" in problem
        assert "hunter2" not in problem
    assert problems(port, user=":secret@") == []


def test_a_server_without_memory_is_refused(server: Server) -> None:
    port = server("--maxmemory", "1")
    [problem] = problems(port)
    assert "memory" in problem


def test_a_key_of_another_program_is_named(server: Server) -> None:
    port = server()
    with asked(port) as client:
        client.set("search", "someone's")
    [problem] = problems(port)
    assert "something else under the key search" in problem
    assert problems(port, database=1) == []


def test_a_server_that_evicts_is_refused_by_preflight(server: Server) -> None:
    port = server("--maxmemory-policy", "allkeys-lru")
    [problem] = services.redis(QueueSettings(redis_url=f"redis://127.0.0.1:{port}/0"))
    assert problem.endswith("maxmemory-policy is allkeys-lru; set it to noeviction, or requests are lost")


@pytest.fixture
def users(server: Server) -> int:
    port = server()
    with asked(port) as client:
        for line in ACL.read_text(encoding="utf-8").splitlines():
            name, _, *rules = line.removeprefix("user ").split()
            if name != "default":
                client.execute_command("ACL", "SETUSER", name, "on", ">pass", *rules)
    return port


def test_the_shipped_users_have_the_rights_of_their_role(users: int) -> None:
    assert problems(users, user="llmi-run:pass@", serves=False) == []
    assert problems(users, user="llmi-worker:pass@") == []


@pytest.mark.parametrize(
    ("user", "lacking"),
    [("llmi-run", "RPOP"), ("llmi-watch", "SET"), ("llmi-flower", "llmi:")],
)
def test_a_user_without_a_right_is_refused_and_the_right_named(users: int, user: str, lacking: str) -> None:
    found = problems(users, user=f"{user}:pass@")
    assert found
    assert lacking.lower() in found[0].lower()
    assert "ops/redis/users.acl" in found[0]


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        (("~*", "&*", "+@all", "-xadd"), "XADD"),
        (("~*", "&*", "+@all", "-hincrbyfloat"), "HINCRBYFLOAT"),
        (("~*", "&*", "+@all", "-@scripting"), "eval"),
        (("~*", "&*", "+@all", "-multi"), "multi"),
        (("~*", "&*", "+@all", "-subscribe"), "celery.pidbox"),
        (("~*", "resetchannels", "+@all"), "celery.pidbox"),
        (("~llmi:*", "~search*", "&*", "+@all"), "LLEN on diffusion"),
        (("~llmi:*", "~search*", "%R~diffusion*", "&*", "+@all"), "PERSIST on diffusion"),
        (("%RW~*", "&*", "+@all", "-rpop"), "RPOP"),
        (("~*", "&*", "+@all", "-info", "-blpop"), "blpop"),
        (("~*", "&*", "+@all", "-xread"), "xread"),
        (("~*", "&*", "+@all", "-scan"), "scan"),
    ],
)
def test_each_missing_right_is_reported(server: Server, rules: tuple[str, ...], lacking: str) -> None:
    port = server()
    with asked(port) as client:
        client.execute_command("ACL", "SETUSER", "me", "on", ">pass", *rules)
    found = problems(port, user="me:pass@")
    assert found
    assert lacking.lower() in found[0].lower()


def test_a_run_needs_neither_the_rights_of_workers_nor_channels(server: Server) -> None:
    port = server()
    with asked(port) as client:
        rules = ("~*", "resetchannels", "+@all", "-rpop", "-blpop", "-@pubsub")
        client.execute_command("ACL", "SETUSER", "me", "on", ">pass", *rules)
    assert problems(port, user="me:pass@", serves=False) == []
    assert problems(port, user="me:pass@") != []


def test_waiting_requests_are_not_changed(server: Server) -> None:
    port = server()
    with asked(port) as client:
        client.rpush("search", "a", "b")
        client.rpush("code", "c")
        client.expire("code", 600)
        client.set("edit", "of another program", ex=600)
        assert "the key edit" in problems(port)[0]
        assert (client.lrange("search", 0, -1), client.lrange("code", 0, -1)) == (["a", "b"], ["c"])
        assert client.ttl("edit") > 0


def test_a_port_without_redis_and_a_silent_port_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_probe, "CHECK_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        [problem] = problems(silent.getsockname()[1])
        assert "TimeoutError" in problem
    [problem] = problems(_free_port())
    assert "no Redis answers at that address (ConnectionError)" in problem


def test_a_url_that_celery_cannot_read_is_refused_before_connecting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(REDIS_ENV, "unix:///run/redis.sock")
    [problem] = services.redis(QueueSettings())
    assert "write redis://127.0.0.1:6379/0" in problem
    config = RunConfig.model_validate({"name": "r", "train": {"model": "m"}, "data": {"train": ["a"]}})
    assert preflight.local(config, tmp_path / "r") == [problem]  # a dry run tells it too
    assert preflight.surroundings(config, tmp_path / "r").count(problem) == 1
