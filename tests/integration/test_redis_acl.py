"""The shipped users of Redis: each role can do its work, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from queue_requests import Notes, ask, request_for, until
from redis.exceptions import NoPermissionError

from coordinator.redis_server import EmbeddedRedis
from workers import submit
from workers.client import QueueClient
from workers.depths import read_depths
from workers.queues import QUEUES
from workers.roster import read_roster
from workers.settings import REDIS_ENV, QueueSettings

FILE = Path(__file__).parents[2] / "ops/redis/users.acl"
PASSWORD = "a-password"
ROLES = ("llmi-run", "llmi-worker", "llmi-watch", "llmi-flower")

As = Callable[[str], str]


def rules() -> dict[str, list[str]]:
    lines = [line.split() for line in FILE.read_text().splitlines() if line.startswith("user ")]
    return {words[1]: words[2:] for words in lines}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("acl")) as server:
        with redis.Redis.from_url(server.url) as admin:
            for name, words in rules().items():
                admin.execute_command("ACL", "SETUSER", name, *words)
                admin.execute_command("ACL", "SETUSER", name, "on", f">{PASSWORD}")
        yield server


@pytest.fixture
def admin(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.execute_command("ACL", "LOG", "RESET")
        yield client


@pytest.fixture
def settled(server: EmbeddedRedis) -> As:
    """The URL of a role."""
    return lambda role: f"redis://{role}:{PASSWORD}@127.0.0.1:{server.port}/0"


def denied(admin: redis.Redis) -> list[str]:
    return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in admin.acl_log()]


def test_the_file_has_a_user_for_each_role_and_lets_nobody_in() -> None:
    assert tuple(rules()) == ROLES
    for words in rules().values():
        assert words[0] == "off"
        assert not [
            word for word in words if word[0] in ">#" or word in ("nopass", "on", "~*", "&*", "+@all")
        ]
        assert "-@dangerous" in words


async def test_workers_and_runs_do_their_work_under_their_own_users(
    server: EmbeddedRedis,
    admin: redis.Redis,
    settled: As,
    obedient: StartWorker,
    queue_settings: QueueSettings,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, settled("llmi-worker"))
    worker = obedient()
    monkeypatch.setenv(REDIS_ENV, settled("llmi-run"))
    async with QueueClient(queue_settings) as client:
        assert (await ask(client, notes.order())).ok
        cancelled = await client.post(request_for(notes.order(seconds=60.0), seed=1))
        await notes.started(2)
        await client.cancel(cancelled.request.request_id)
        assert not (await cancelled.outcome()).ok
        taken = await client.take_up(request_for(notes.order(), seed=2))
        assert (await taken.outcome()).ok
    late = request_for(notes.order(), seed=3)
    with submit.connect(queue_settings) as poster:
        assert submit.post(poster, [late], 10) == {late.request_id: "posted"}
        await until(lambda: submit.states(poster, "code", [late.request_id])[late.request_id] == "done")
    assert worker.drain(20.0)
    assert denied(admin) == []


async def test_whoever_watches_sees_the_queues_and_the_workers(
    server: EmbeddedRedis,
    admin: redis.Redis,
    settled: As,
    obedient: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, settled("llmi-worker"))
    obedient()
    assert set(read_depths(settled("llmi-watch"))) == set(QUEUES)
    assert [one.queues for one in read_roster(settled("llmi-watch"))] == [("code",)]
    assert denied(admin) == []


FORBIDDEN = {
    "llmi-run": ("BRPOP code 1", "RPOP code", "SET elsewhere 1", "GET elsewhere"),
    "llmi-worker": ("SET elsewhere 1", "GET elsewhere", "PUBLISH elsewhere x"),
    "llmi-watch": ("LPUSH code x", "DEL llmi:stats", "PUBLISH celery x", "GET elsewhere", "HDEL unacked x"),
    "llmi-flower": ("LPUSH code x", "GET llmi:outcome:x", "EVAL return 0"),
}
ALWAYS = (
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /", "KEYS *", "SHUTDOWN", "ACL LIST",
    "MODULE LIST", "REPLICAOF NO ONE", "SAVE", "MONITOR", "SWAPDB 0 1",
    "CLIENT KILL TYPE normal", "MIGRATE h 1 k 0 1",
)  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_nobody_can_do_more(role: str, admin: redis.Redis, settled: As) -> None:
    with redis.Redis.from_url(settled(role)) as client:
        for command in (*FORBIDDEN[role], *ALWAYS):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_a_script_is_no_way_round(settled: As, admin: redis.Redis) -> None:
    """What a script does is done with its caller's rights."""
    with redis.Redis.from_url(settled("llmi-watch")) as client, pytest.raises(redis.RedisError):
        client.eval("return redis.call('LPUSH', 'code', 'x')", 0)
    assert admin.llen("code") == 0
    with redis.Redis.from_url(settled("llmi-run")) as client, pytest.raises(redis.RedisError):
        client.eval("return redis.call('FLUSHALL')", 0)
