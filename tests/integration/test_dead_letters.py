"""An invalid message is dead-lettered with the reason, and the worker continues."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fuzz
import pytest
import redis
import redis.asyncio
from conftest import StartWorker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_jobs import Order
from queue_requests import Notes, ask, cause_of, request_for
from waiting import until, wait_until

from workers.broker.dead_letters import (
    KEY,
    MAX_ENTRIES,
    MAX_MESSAGE_BYTES,
    dead_letter_message,
    read_dead_letters,
)
from workers.broker.keys import outcome_key
from workers.celery_app.transport.validation import why_invalid
from workers.client.client import QueueClient
from workers.client.publisher import Publisher, encode
from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Request
from workers.process.worker import WorkerProcess
from workers.settings import QueueSettings

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
    "oversized": b'{"body": "' + b"x" * MAX_MESSAGE_BYTES + b'"}',
}
NO_TASK: dict[str, tuple[Change, str]] = {
    "no delivery tag": (lambda m: m["properties"].pop("delivery_tag") and m, "delivery_tag"),
    "a body that is no base64": (lambda m: {**m, "body": "abc"}, "body"),
    "no headers": (lambda m: {**m, "headers": {}}, "headers.task"),
    "an unknown task": (lambda m: {**m, "headers": {**m["headers"], "task": "os.system"}}, "os.system"),
    "a pickle": (lambda m: {**m, "content-type": "application/x-python-serialize"}, "content-type"),
    "no argument": (with_body([]), "one argument"),
    "another version": (with_body([{"version": 2}]), "version"),
    "no request": (with_body(["words"]), "valid dictionary"),
    "a list as body": (lambda m: {**m, "body": body([])}, "the body is not a list of arguments"),
    "words as body": (lambda m: {**m, "body": base64.b64encode(b"words").decode()}, "cannot be read"),
}


async def test_an_invalid_message_is_dead_lettered_and_the_worker_continues(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    worker = start_worker()
    for number, (name, entry) in enumerate(NO_MESSAGE.items()):
        raw.lpush("code", entry)
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert newest.queue == "code", name
        assert ("at most 1048576" if name == "oversized" else "invalid message: ") in newest.detail, name
        assert newest.size == len(entry), name
        assert newest.payload.startswith(entry[:5].decode(errors="replace")), name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.hlen("unacked") == 0)


async def test_an_invalid_task_is_dead_lettered_and_its_client_notified(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    worker = start_worker()
    for number, (name, (change, reason)) in enumerate(NO_TASK.items()):
        request = request_for(Order(), seed=number)
        raw.lpush("code", json.dumps(change(message(request))))
        await until(lambda request=request: raw.exists(outcome_key(request.request_id)))
        stored = json.loads(raw.get(outcome_key(request.request_id)))
        assert stored["result"]["cause"] == Cause.BAD_MESSAGE.value, name
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert reason in newest.detail, name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.hlen("unacked") == 0)


def test_a_detail_in_half_characters_is_kept_and_a_long_one_cut(queue_settings: QueueSettings) -> None:
    """Regression: the letter could not be written, and the error ended the worker."""
    with redis.Redis.from_url(queue_settings.url) as raw:
        dead_letter_message(
            raw, "co\ud800de", "no task is called \ud800" + "x" * 5_000, b'{"correlation_id": "r"}', 60
        )
    [letter] = read_dead_letters(queue_settings.url)
    assert letter.queue == "co\ufffdde"
    assert letter.detail.startswith("no task is called \ufffdxxx")
    assert len(letter.detail) == 2_000


async def test_an_expired_request_is_dead_lettered(
    start_worker: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    start_worker()
    late = request_for(Order(), timeout_s=0.5)
    with redis.Redis.from_url(queue_settings.url) as raw:
        raw.lpush("search", encode(late.model_copy(update={"kind": "search"}), tag="t", reply_to=""))
        await asyncio.sleep(0)
        await until(lambda: time.time() > late.deadline)
    start_worker("search")
    await until(lambda: bool(read_dead_letters(queue_settings.url)))
    [letter] = read_dead_letters(queue_settings.url)
    assert (letter.queue, letter.reason) == ("search", "expired")
    assert "deadline" in letter.detail
    assert late.request_id in letter.payload


async def test_a_request_that_is_too_large_is_not_posted(
    client: QueueClient, queue_settings: QueueSettings
) -> None:
    large = Request.make("code", Order(notes="x" * MAX_MESSAGE_BYTES), timeout_s=60.0)
    with pytest.raises(InfrastructureFault, match="at most") as received:
        await client.post(large)
    assert received.value.cause is Cause.BAD_MESSAGE
    assert client.in_flight == 0
    assert cause_of(await ask(client, Order(), timeout_s=0.2)) is Cause.TIMEOUT, "others are posted"


async def test_a_request_that_cannot_be_encoded_fails_alone(client: QueueClient) -> None:
    """Regression: the encoder's error ended the sender, and with it every later request."""
    odd = request_for(Order()).model_copy(update={"payload": {"act": object()}})
    for way in (client.post, client.reattach):
        with pytest.raises(InfrastructureFault, match="cannot be written") as received:
            await way(odd)
        assert received.value.cause is Cause.BAD_MESSAGE
    assert client.in_flight == 0
    assert (await client.post(request_for(Order()))).was_posted


async def test_a_caller_that_gives_up_during_a_batch_does_not_end_the_publisher(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    """Regression: the fault was set on a cancelled future, and the sender ended."""
    large = Request.make("code", Order(notes="x" * MAX_MESSAGE_BYTES), timeout_s=60.0)

    class Hesitant(Publisher):
        async def _poll_full_queues(self) -> None:
            giving_up.cancel()
            await asyncio.sleep(0)

    async with redis.asyncio.Redis.from_url(queue_settings.url) as connection:
        publisher = Hesitant(connection, "", 10)
        giving_up = asyncio.create_task(publisher.publish(large, "t"))
        sending = asyncio.create_task(publisher.run())
        await asyncio.wait([giving_up])
        async with asyncio.timeout(20.0):
            await publisher.publish(request_for(Order()), "u")
        assert not sending.done()
        sending.cancel()
    assert raw.llen("code") == 1


def test_only_the_newest_are_kept(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        for number in range(MAX_ENTRIES + 3):
            dead_letter_message(raw, "code", f"reason {number}", b"m" * 5_000, 60)
        assert 0 < raw.ttl(KEY) <= 60
    letters = read_dead_letters(queue_settings.url)
    assert (len(letters), letters[0].detail) == (MAX_ENTRIES, f"reason {MAX_ENTRIES + 2}")
    assert (letters[0].size, len(letters[0].payload)) == (5_000, 2_000)


def test_entries_of_another_version_are_skipped(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        dead_letter_message(raw, "code", "kept", b"m", 60)
        raw.lpush(KEY, json.dumps({"queue": "code", "reason": "old", "since": 0, "size": 1, "message": "m"}))
    assert [letter.detail for letter in read_dead_letters(queue_settings.url)] == ["kept"]


def test_dead_letters_are_shown(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        dead_letter_message(raw, "code", "no message: [red]x[/]", b"hello", 60)
    command = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
    command += ["workers", "status", "--redis", queue_settings.url]
    received = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    [letter] = json.loads(received.stdout)["dead_letters"]
    assert (letter["queue"], letter["payload"]) == ("code", "hello")
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "dead letter (invalid) in code" in read.stdout
    assert "no message: [red]x[/]" in read.stdout


def test_a_posted_message_is_valid(queue_settings: QueueSettings) -> None:
    assert why_invalid(encode(request_for(Order()), tag="t", reply_to="").encode(), "code") == ""


NUMBERS = itertools.count()


@st.composite
def forgeries(draw: st.DrawFn) -> bytes:
    """A list entry: any bytes, or a request with changes, also in its body."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=60))
    named = {"request_id": f"forged-{next(NUMBERS)}"}
    whole = message(request_for(Order(), timeout_s=600.0).model_copy(update=named))
    whole["body"] = json.loads(base64.b64decode(whole["body"]))
    changed = draw(fuzz.nearly(whole, untouched=("payload",)))  # the test jobs obey their payload
    if isinstance(changed, dict) and "body" in changed:
        changed["body"] = base64.b64encode(fuzz.as_text(changed["body"]).encode()).decode()
    return fuzz.as_text(changed).encode()


def asked_in(entry: bytes) -> Request:
    return Request.model_validate(json.loads(base64.b64decode(json.loads(entry)["body"]))[0][0])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(entries=st.lists(forgeries(), min_size=4, max_size=8))
def test_forged_messages_all_end_as_outcomes_or_dead_letters(
    entries: list[bytes], forged_to: WorkerProcess, raw: redis.Redis
) -> None:
    raw.delete(KEY)
    taken = {asked_in(entry).request_id for entry in entries if not why_invalid(entry, "code")}
    refused = [entry for entry in entries if why_invalid(entry, "code")]
    raw.lpush("code", *entries)

    def by_validation() -> int:
        """How many dead letters the validation wrote. Jobs write others: for a request that is late, or that
        has an invalid payload.
        """
        of_jobs = (b"deadline had passed", b'"payload: ')
        letters = raw.lrange(KEY, 0, -1)
        return sum(not any(words in letter for words in of_jobs) for letter in letters)

    wait_until(lambda: by_validation() >= len(refused) and all(raw.exists(outcome_key(one)) for one in taken))
    assert by_validation() == len(refused)
    for one in taken:
        Outcome.model_validate_json(raw.get(outcome_key(one)))
    assert forged_to.alive


@pytest.fixture
def forged_to(start_worker: StartWorker, raw: redis.Redis) -> Iterator[WorkerProcess]:
    """A worker that must do an honest job as ever when the forged ones are through."""
    worker = start_worker("code", 2)
    yield worker
    honest = request_for(Order())
    raw.lpush("code", encode(honest, tag="honest", reply_to=""))
    stored = wait_until(lambda: raw.get(outcome_key(honest.request_id)))
    assert Outcome.model_validate_json(stored).ok


@pytest.mark.parametrize("entry", [b"hello", b"[]", b"{}"])
def test_kombu_alone_raises_at_an_invalid_entry(entry: bytes, queue_settings: QueueSettings) -> None:
    """If this fails, kombu handles it, and `workers.celery_app.transport.channel` can go."""
    from kombu import Connection

    with Connection(queue_settings.url, transport="kombu.transport.redis:Transport") as connection:
        with redis.Redis.from_url(queue_settings.url) as raw:
            raw.lpush("plain", entry)
        with connection.SimpleQueue("plain") as queue, pytest.raises((ValueError, KeyError, TypeError)):
            queue.get(timeout=5.0)
