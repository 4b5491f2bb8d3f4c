"""An invalid message is dead-lettered with the reason, and the worker continues."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import fuzz
import pytest
import redis
import redis.asyncio
from conftest import StartWorker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from queue_jobs import Order
from queue_requests import Notes, ask, cause_of, request_for
from raw_queue import put_entry, put_message, queue_up
from waiting import until, wait_until

from workers.broker.claims import Claim
from workers.broker.dead_letters import (
    MAX_ENTRIES,
    Reason,
    dead_letter_message,
    dead_letters_key,
    read_dead_letters,
)
from workers.broker.keys import held_key, outcome_key, queue_lists, replies_key
from workers.broker.posting import MAX_MESSAGE_BYTES, Posted
from workers.celery_app.delivery.intake import Refused, read_request
from workers.client import publisher
from workers.client.client import QueueClient
from workers.client.publisher import Publisher
from workers.errors import Cause, InfrastructureFault
from workers.messages import Outcome, Request
from workers.process.worker import WorkerProcess
from workers.settings import QueueSettings

Change = Callable[[dict[str, Any]], Any]
KEY = dead_letters_key("invalid")
STREAM = replies_key("test")


def message(request: Request) -> dict[str, Any]:
    return json.loads(request.model_dump_json())


NO_MESSAGE = {
    "bytes": b"\xff\xfe\x00",
    "words": b"hello",
    "half a message": b'{"version": 2, "kind": "co',
    "a list": b"[]",
    "an empty object": b"{}",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "oversized": b'{"kind": "' + b"x" * MAX_MESSAGE_BYTES + b'"}',
}
NO_REQUEST: dict[str, tuple[Change, str]] = {
    "an older version": (
        lambda m: {**m, "version": 1},
        "a message of version 1, and this program reads version 2",
    ),
    "a later version": (
        lambda m: {**m, "version": 3},
        "a message of version 3, and this program reads version 2",
    ),
    "an unknown kind": (lambda m: {**m, "kind": "os.system"}, "another request"),
    "the kind of another queue": (lambda m: {**m, "kind": "search"}, "another request"),
    "another id": (lambda m: {**m, "request_id": "another"}, "another request"),
    "no id": (lambda m: m.pop("request_id") and m, "request_id"),
    "a field that no version has": (lambda m: {**m, "pickle": "gASVBQ=="}, "pickle"),
    "words as payload": (lambda m: {**m, "payload": "words"}, "payload"),
    "words": (lambda m: "words", "an object"),
    "a list": (lambda m: [m], "an object"),
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
        put_message(raw, "code", f"message {number}", entry)
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert newest.queue == "code", name
        assert ("at most 1048576" if name == "oversized" else "invalid request: ") in newest.detail, name
        assert newest.size == len(entry), name
        assert newest.payload.startswith(entry[:5].decode(errors="replace")), name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.zcard(held_key("code")) == 0)


async def test_an_entry_that_is_no_id_is_dead_lettered_and_the_worker_continues(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    """As a producer that uses Celery would write it."""
    worker = start_worker()
    entry = json.dumps(
        {"body": "W10=", "headers": {"task": "os.system"}, "properties": {}, "x": "x" * 99}
    ).encode()
    put_entry(raw, "code", entry)
    await until(lambda: raw.llen(KEY) == 1)
    [letter] = read_dead_letters(queue_settings.url)
    assert (letter.queue, letter.size, letter.payload) == ("code", len(entry), entry.decode())
    assert "not the id of a request" in letter.detail
    assert (await ask(client, notes.order())).ok
    assert worker.alive


async def test_an_invalid_request_is_dead_lettered_and_its_client_notified(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    worker = start_worker()
    for number, (name, (change, reason)) in enumerate(NO_REQUEST.items()):
        request = request_for(Order(), seed=number)
        put_message(raw, "code", request.request_id, json.dumps(change(message(request))), STREAM)
        await until(lambda request=request: raw.exists(outcome_key(request.request_id)))
        outcome = Outcome.model_validate_json(raw.get(outcome_key(request.request_id)))
        assert (outcome.request_id, outcome.kind) == (request.request_id, "code")
        assert cause_of(outcome) is Cause.BAD_MESSAGE, name
        assert raw.xrevrange(STREAM, count=1)[0][1] == {b"id": request.request_id.encode()}
        await until(lambda number=number: raw.llen(KEY) == number + 1)
        [newest, *_] = read_dead_letters(queue_settings.url)
        assert reason in newest.detail, name
    assert (await ask(client, notes.order())).ok
    assert worker.alive
    await until(lambda: raw.zcard(held_key("code")) == 0)


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
        queue_up(raw, late.model_copy(update={"kind": "search"}))
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
    queue_settings: QueueSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the fault was set on a cancelled future, and the sender ended."""
    large = Request.make("code", Order(notes="x" * MAX_MESSAGE_BYTES), timeout_s=60.0)
    post_async = publisher.post_async

    async def hesitate(*given: Any, **options: Any) -> list[Posted]:
        for caller in giving_up:
            caller.cancel()
        await asyncio.wait(giving_up)
        return await post_async(*given, **options)

    monkeypatch.setattr(publisher, "post_async", hesitate)
    async with redis.asyncio.Redis.from_url(queue_settings.url) as connection:
        sender = Publisher(connection, "", 10)
        giving_up = [asyncio.create_task(sender.publish(one)) for one in (large, request_for(Order()))]
        await asyncio.sleep(0)
        sending = asyncio.create_task(sender.run())
        await asyncio.wait(giving_up)
        async with asyncio.timeout(20.0):
            assert (await sender.publish(request_for(Order()))).state == "posted"
        assert not sending.done()
        sending.cancel()
    assert raw.llen(queue_lists("code")[1]) == 2, "what Redis got in spite of its caller, and the last"


def test_only_the_newest_are_kept(queue_settings: QueueSettings) -> None:
    with redis.Redis.from_url(queue_settings.url) as raw:
        for number in range(MAX_ENTRIES + 3):
            dead_letter_message(raw, "code", f"reason {number}", b"m" * 5_000, 60)
        assert 0 < raw.ttl(KEY) <= 60
    letters = read_dead_letters(queue_settings.url)
    assert (len(letters), letters[0].detail) == (MAX_ENTRIES, f"reason {MAX_ENTRIES + 2}")
    assert (letters[0].size, len(letters[0].payload)) == (5_000, 2_000)


@pytest.mark.parametrize(("many", "kept"), [("expired", "invalid"), ("invalid", "expired")])
def test_many_letters_of_one_reason_push_out_none_of_another(
    many: Reason, kept: Reason, queue_settings: QueueSettings
) -> None:
    """Regression: an hour of late requests removed the one malformed message from the list."""
    with redis.Redis.from_url(queue_settings.url) as raw:
        dead_letter_message(raw, "code", "the only one", b"m", 60, kept)
        for _ in range(MAX_ENTRIES + 1):
            dead_letter_message(raw, "code", "one of many", b"m", 60, many)
    letters = read_dead_letters(queue_settings.url)
    assert [letter.detail for letter in letters if letter.reason == kept] == ["the only one"]
    assert len(letters) == MAX_ENTRIES + 1


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


NUMBERS = itertools.count()


@st.composite
def forgeries(draw: st.DrawFn) -> tuple[str, bytes]:
    """An id, and its message: any bytes, or a request with changes."""
    request_id = f"forged-{next(NUMBERS)}"
    if draw(st.integers(0, 5)) == 0:
        return request_id, draw(st.binary(max_size=60))
    whole = message(request_for(Order(), timeout_s=600.0).model_copy(update={"request_id": request_id}))
    changed = draw(fuzz.nearly(whole, untouched=("payload",)))  # the test jobs obey their payload
    return request_id, fuzz.as_text(changed).encode()


def is_refused(request_id: str, entry: bytes) -> bool:
    try:
        read_request(Claim(request_id, 1, "code", entry, left_s=600.0), 3)
    except (Refused, ValidationError):
        return True
    return False


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(forged=st.lists(forgeries(), min_size=4, max_size=8))
def test_forged_messages_all_end_as_outcomes_or_dead_letters(
    forged: list[tuple[str, bytes]], forged_to: WorkerProcess, raw: redis.Redis
) -> None:
    raw.delete(KEY)
    refused = {request_id for request_id, entry in forged if is_refused(request_id, entry)}
    for request_id, entry in forged:
        put_message(raw, "code", request_id, entry)

    def of_intake() -> int:
        """How many dead letters the intake wrote. Jobs write others, for an invalid payload."""
        return sum(b'"payload: ' not in letter for letter in raw.lrange(KEY, 0, -1))

    ids = [request_id for request_id, _ in forged]
    wait_until(lambda: raw.exists(*map(outcome_key, ids)) == len(ids))
    assert of_intake() == len(refused)
    for request_id in ids:
        outcome = Outcome.model_validate_json(raw.get(outcome_key(request_id)))
        assert outcome.request_id == request_id
        if request_id in refused:
            assert cause_of(outcome) is Cause.BAD_MESSAGE
    assert forged_to.alive


@pytest.fixture
def forged_to(start_worker: StartWorker, raw: redis.Redis) -> Iterator[WorkerProcess]:
    """A worker that must do an honest job as ever when the forged ones are through."""
    worker = start_worker("code", 2)
    yield worker
    honest = request_for(Order())
    queue_up(raw, honest)
    stored = wait_until(lambda: raw.get(outcome_key(honest.request_id)))
    assert Outcome.model_validate_json(stored).ok
