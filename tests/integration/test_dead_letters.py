"""What is no request of ours is buried with the reason, and the worker goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, ask, cause_of, request_for, until

from workers.client import QueueClient
from workers.dead_letters import KEPT, KEY, MAX_BYTES, bury, read_dead_letters
from workers.errors import Cause, InfrastructureFault
from workers.messages import Request
from workers.outcomes import outcome_key
from workers.publisher import encode
from workers.settings import QueueSettings
from workers.transport import problem

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def raw(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


def message(request: Request) -> dict[str, Any]:
    return json.loads(encode(request, tag=uuid.uuid4().hex, reply_to=""))


def body(task_arguments: Any) -> str:
    return base64.b64encode(json.dumps(task_arguments).encode()).decode()


def with_body(arguments: Any) -> Change:
    return lambda message: {**message, "body": body([arguments, {}, {}])}


NO_MESSAGE = {
    "bytes": b"\xff\xfe\x00",
    "words": b"hello",
    "half a message": b'{"body": "abc',
    "a list": b"[]",
    "an empty object": b"{}",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "oversized": b'{"body": "' + b"x" * MAX_BYTES + b'"}',
}
NO_TASK: dict[str, tuple[Change, str]] = {
    "no delivery tag": (lambda m: m["properties"].pop("delivery_tag") and m, "delivery_tag"),
    "a body that is no base64": (lambda m: {**m, "body": "abc"}, "body"),
    "no headers": (lambda m: {**m, "headers": {}}, "no message of a task"),
    "an unknown task": (lambda m: {**m, "headers": {**m["headers"], "task": "os.system"}}, "os.system"),
    "a pickle": (lambda m: {**m, "content-type": "application/x-python-serialize"}, "not accepted"),
    "no argument": (with_body([]), "one argument"),
    "another version": (with_body([{"version": 2}]), "version"),
    "no request": (with_body(["words"]), "valid dictionary"),
    "a list as body": (lambda m: {**m, "body": body([])}, ""),
    "words as body": (lambda m: {**m, "body": base64.b64encode(b"words").decode()}, ""),
}


async def test_what_is_no_message_is_buried_and_the_worker_goes_on(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    worker = obedient()
    for number, (name, entry) in enumerate(NO_MESSAGE.items()):
        raw.lpush("code", entry)
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert newest.queue == "code", name
        assert newest.reason, name
        assert newest.size == len(entry), name
        assert newest.message.startswith(entry[:5].decode(errors="replace")), name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.hlen("unacked") == 0)


async def test_what_is_no_task_is_buried_and_its_poster_is_told(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    worker = obedient()
    for number, (name, (change, reason)) in enumerate(NO_TASK.items()):
        request = request_for(Order(), seed=number)
        raw.lpush("code", json.dumps(change(message(request))))
        await until(lambda request=request: raw.exists(outcome_key(request.request_id)))
        stored = json.loads(raw.get(outcome_key(request.request_id)))
        assert stored["result"]["cause"] == Cause.BAD_MESSAGE.value, name
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert reason in newest.reason, name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.hlen("unacked") == 0)


async def test_a_request_that_came_too_late_is_buried(
    obedient: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    obedient()
    late = request_for(Order(), timeout_s=0.5)
    with redis.Redis.from_url(queue_settings.url) as raw:
        raw.lpush("search", encode(late.model_copy(update={"kind": "search"}), tag="t", reply_to=""))
        await asyncio.sleep(0)
        await until(lambda: time.time() > late.deadline)
    obedient("search")
    await until(lambda: bool(read_dead_letters(queue_settings.url)))
    [letter] = read_dead_letters(queue_settings.url)
    assert letter.queue == "search"
    assert "deadline" in letter.reason
    assert late.request_id in letter.message


async def test_a_request_that_no_worker_would_take_is_not_posted(
    client: QueueClient, queue_settings: QueueSettings
) -> None:
    large = Request.make("code", Order(notes="x" * MAX_BYTES), timeout_s=60.0)
    with pytest.raises(InfrastructureFault, match="at most") as told:
        await client.post(large)
    assert told.value.cause is Cause.BAD_MESSAGE
    assert client.in_flight == 0
    assert cause_of(await ask(client, Order(), timeout_s=0.2)) is Cause.TIMEOUT, "others are posted"


def test_only_the_newest_are_kept(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        for number in range(KEPT + 3):
            bury(raw, "code", f"reason {number}", b"m" * 5_000, 60)
        assert 0 < raw.ttl(KEY) <= 60
    letters = read_dead_letters(queue_settings.url)
    assert (len(letters), letters[0].reason) == (KEPT, f"reason {KEPT + 2}")
    assert (letters[0].size, len(letters[0].message)) == (5_000, 2_000)


def test_dead_letters_are_shown(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        bury(raw, "code", "no message: [red]x[/]", b"hello", 60)
    command = [sys.executable, "-c", "from coordinator.cli import main; main()"]
    command += ["workers", "status", "--redis", queue_settings.url]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    [letter] = json.loads(told.stdout)["dead_letters"]
    assert (letter["queue"], letter["message"]) == ("code", "hello")
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "dead letter in code" in read.stdout
    assert "no message: [red]x[/]" in read.stdout


def test_what_celery_posts_is_a_message(queue_settings: QueueSettings) -> None:
    assert problem(encode(request_for(Order()), tag="t", reply_to="").encode()) == ""


@pytest.mark.parametrize("entry", [b"hello", b"[]", b"{}"])
def test_kombu_alone_ends_at_what_is_no_message(entry: bytes, queue_settings: QueueSettings) -> None:
    """If this fails, kombu has learnt it, and `workers.transport` can go."""
    from kombu import Connection

    with Connection(queue_settings.url, transport="kombu.transport.redis:Transport") as connection:
        with redis.Redis.from_url(queue_settings.url) as raw:
            raw.lpush("plain", entry)
        with connection.SimpleQueue("plain") as queue, pytest.raises((ValueError, KeyError, TypeError)):
            queue.get(timeout=5.0)
