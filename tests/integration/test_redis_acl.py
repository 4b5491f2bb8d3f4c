"""The shipped users of Redis: each role can do its work and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import StartWorker
from metrics_pages import get_json
from places import REPOSITORY
from queue_requests import Notes, ask, request_for
from raw_queue import queue_up
from redis.exceptions import NoPermissionError
from waiting import until, wait_until

from coordinator.host.redis_server import _binary, _free_port
from workers.broker.breakers import read_breakers
from workers.broker.claims import claim
from workers.broker.dead_letters import read_dead_letters
from workers.broker.depths import read_depths
from workers.broker.keys import held_key
from workers.broker.outcomes import commit
from workers.broker.registry import read_workers
from workers.broker.request_status import find_request
from workers.client import blocking as submit
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Outcome
from workers.metrics.endpoint import targets
from workers.queues import QUEUES
from workers.redis_client import connect_redis
from workers.settings import REDIS_ENV, QueueSettings

FILE = REPOSITORY / "ops/redis/users.acl"
PASSWORD = "a-password"
VISITOR = "someone:secret"
ROLES = ("llmi-run", "llmi-worker", "llmi-watch", "llmi-flower")

As = Callable[[str], str]


def rules() -> dict[str, list[str]]:
    lines = [line.split() for line in FILE.read_text().splitlines() if line.startswith("user ")]
    return {words[1]: words[2:] for words in lines}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server with the file, every role enabled as docs/workers.md says."""
    folder, port = tmp_path_factory.mktemp("acl"), _free_port()
    text = FILE.read_text()
    for role in ("llmi-admin", *ROLES):
        text = text.replace(f"user {role} off ", f"user {role} on >{PASSWORD} ")
    (folder / "users.acl").write_text(text)
    command = [str(_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--aclfile", "users.acl"], cwd=folder, stdout=log)
    try:
        with redis.Redis(port=port) as client:

            def refuses() -> bool:
                """Whether it answers, and refuses users without a password."""
                try:
                    client.ping()
                except redis.AuthenticationError:
                    return True
                except redis.ConnectionError:
                    assert server.poll() is None, (folder / "log").read_text()
                return False

            wait_until(refuses)
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def admin(settled: As) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settled("llmi-admin")) as client:
        client.flushall()
        client.execute_command("ACL", "LOG", "RESET")
        yield client


@pytest.fixture
def settled(port: int) -> As:
    """The URL of a role."""
    return lambda role: f"redis://{role}:{PASSWORD}@127.0.0.1:{port}/0"


def denied(admin: redis.Redis) -> list[str]:
    return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in admin.acl_log()]


def test_the_file_has_a_disabled_user_for_each_role() -> None:
    assert tuple(rules()) == ("default", "llmi-admin", *ROLES)
    for name, words in rules().items():
        assert words[0] == "off"
        assert not [word for word in words if word[0] in ">#" or word in ("nopass", "on")]
        if name in ROLES:
            assert not {"~*", "&*", "+@all"} & set(words)
            assert "-@dangerous" in words


async def test_workers_and_runs_work_as_their_own_users(
    admin: redis.Redis,
    settled: As,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, settled("llmi-worker"))
    worker = start_worker()
    monkeypatch.setenv(REDIS_ENV, settled("llmi-run"))
    async with QueueClient(queue_settings) as client:
        assert (await ask(client, notes.order())).ok
        cancelled = await client.post(request_for(notes.order(seconds=60.0), seed=1))
        await notes.started(2)
        await client.cancel(cancelled.request.request_id)
        assert not (await cancelled.outcome()).ok
        taken = await client.reattach(request_for(notes.order(), seed=2))
        assert (await taken.outcome()).ok
    late = request_for(notes.order(), seed=3)
    with connect_redis(queue_settings.url) as poster:
        assert submit.post(poster, [late], 10) == {late.request_id: "posted"}
        await until(lambda: submit.states(poster, [late.request_id])[late.request_id] == "done")
    assert worker.drain(20.0)
    assert denied(admin) == []


async def test_the_watch_user_reads_queues_and_workers(
    admin: redis.Redis,
    settled: As,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, settled("llmi-worker"))
    start_worker()
    assert set(read_depths(settled("llmi-watch"))) == set(QUEUES)
    with redis.Redis.from_url(settled("llmi-watch")) as client:
        await until(lambda: targets(client))
        queue_up(admin, request := request_for(notes.order(seconds=60.0)))
        await notes.started()
    status = find_request(settled("llmi-watch"), queue_settings, request.request_id, "code")
    assert status.state == "running"
    assert read_dead_letters(settled("llmi-watch")) == []
    assert read_breakers(settled("llmi-watch")).outages == []
    assert [one.queues for one in read_workers(settled("llmi-watch"))] == [("code",)]
    assert denied(admin) == []


@pytest.fixture
def flower(settled: As, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Run Flower as its Redis user. Returns a function for the workers it lists, None until it answers."""
    command = [str(FILE.parents[1] / "flower.sh"), "--port", str(port := _free_port())]
    env = {**os.environ, REDIS_ENV: settled("llmi-flower"), "FLOWER_BASIC_AUTH": VISITOR}
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)

    def workers() -> Any:
        assert process.poll() is None, (tmp_path / "flower.log").read_text()
        try:
            return get_json(f"http://127.0.0.1:{port}/api/workers?refresh=1", VISITOR)
        except OSError:  # not listening yet
            return None

    yield workers
    process.terminate()
    process.wait()


async def test_the_flower_user_reads_and_inspects_workers(
    admin: redis.Redis,
    settled: As,
    start_worker: StartWorker,
    flower: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, settled("llmi-worker"))
    worker = start_worker()
    found: dict[str, Any] = {}

    def sees() -> bool:
        found.update((flower() or {}).get(f"{worker.name}@{worker.node}", {}))
        return bool(found.get("active_queues"))

    await until(sees, 60.0)
    assert [queue["name"] for queue in found["active_queues"]] == ["code"]
    assert denied(admin) == []


FORBIDDEN = {
    "llmi-run": (
        "RPOP code",
        "BLPOP code 1",
        "BRPOP code 1",
        "LMOVE code llmi:x LEFT LEFT",
        "LREM code 1 x",
        "LTRIM code 0 0",
        "SET elsewhere 1",
        "GET elsewhere",
        "PUBLISH celery.pidbox x",
    ),
    "llmi-worker": ("SET elsewhere 1", "GET elsewhere", "PUBLISH elsewhere x"),
    "llmi-watch": (
        "LPUSH code x",
        "DEL llmi:stats",
        "PUBLISH celery x",
        "GET elsewhere",
        "ZREM llmi:held:code x",
    ),
    "llmi-flower": ("LPUSH code x", "GET llmi:outcome:x", "SCRIPT FLUSH"),
}
ALWAYS = (
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /", "KEYS *", "SHUTDOWN", "ACL LIST",
    "MODULE LIST", "REPLICAOF NO ONE", "SAVE", "MONITOR", "SWAPDB 0 1",
    "CLIENT KILL TYPE normal", "MIGRATE h 1 k 0 1",
)  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_a_user_cannot_run_other_commands(role: str, admin: redis.Redis, settled: As) -> None:
    with redis.Redis.from_url(settled(role)) as client:
        for command in (*FORBIDDEN[role], *ALWAYS):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_a_script_does_not_bypass_the_rights(settled: As, admin: redis.Redis) -> None:
    """A script runs with the rights of its caller."""
    with redis.Redis.from_url(settled("llmi-watch")) as client, pytest.raises(redis.RedisError):
        client.eval("return redis.call('LPUSH', 'code', 'x')", 0)
    assert admin.llen("code") == 0
    with redis.Redis.from_url(settled("llmi-run")) as client, pytest.raises(redis.RedisError):
        client.eval("return redis.call('FLUSHALL')", 0)


def test_a_run_can_post_and_cancel_and_cannot_claim(settled: As, admin: redis.Redis, notes: Notes) -> None:
    request = request_for(notes.order())
    with redis.Redis.from_url(settled("llmi-run")) as client:
        queue_up(client, request)
        with pytest.raises(redis.RedisError, match=r"(?i)permission|acl"):
            claim(client, ["code"], 1, "me", 60.0)
        assert admin.zcard(held_key("code")) == 0
        commit(client, Outcome.failed(request, Cause.CANCELLED), "", 60)
    assert claim(admin, ["code"], 1, "me", 60.0) == []
