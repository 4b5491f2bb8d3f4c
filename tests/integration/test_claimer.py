"""The claimer of a worker: slots, reconnections, shutdowns, pauses and lost answers; without Celery."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Message
from queue_jobs import Order
from queue_requests import request_for
from raw_queue import put_message, queue_up
from waiting import wait_until

from workers.broker.claims import Claim
from workers.broker.dead_letters import read_dead_letters
from workers.broker.keys import held_key, outcome_key, queue_lists, record_key
from workers.celery_app.delivery import claimer as module
from workers.celery_app.delivery.claimer import Claimer, Held
from workers.messages import Request
from workers.settings import QueueSettings

NAME = "w@node"


class Celery:
    """What Celery is to a claimer: it takes messages when it is notified."""

    def __init__(self, settings: QueueSettings, slots: int, queues: tuple[str, ...]):
        self.claimer = Claimer(settings, NAME, queues, slots, lambda: True)
        self.received: list[Message] = []
        self.notified = threading.Event()
        self.claimer.start()

    def connect(self) -> None:
        self.claimer.resume(lambda call: call(), self.received.append)

    @property
    def ids(self) -> list[str]:
        return [message.properties["correlation_id"] for message in self.received]

    @property
    def held(self) -> dict[str, Held]:
        """What the claimer holds by request id and attempt, such as "a/1"."""
        held = self.claimer.held().values()
        return {f"{one.claim.request_id}/{one.claim.attempt}": one for one in held}

    def tag(self, name: str) -> str:
        """The delivery tag of a request id and attempt."""
        return self.held[name].claim.tag


@pytest.fixture
def celery(queue_settings: QueueSettings) -> Iterator[Celery]:
    """A worker with two slots that serves `code` and `search`. Its thread ends with the process."""
    one = Celery(queue_settings, 2, ("code", "search"))
    yield one
    one.claimer.stop_claiming([])


def named(*names: str) -> list[Request]:
    return [request_for(Order()).model_copy(update={"request_id": name}) for name in names]


def state(raw: redis.Redis, name: str) -> tuple[str, str]:
    """State and number of claims."""
    return tuple((found or b"-").decode() for found in raw.hmget(record_key(name), "state", "claims"))  # type: ignore[return-value]


def test_no_more_is_claimed_than_there_are_slots(celery: Celery, raw: redis.Redis) -> None:
    queue_up(raw, *named("a", "b", "c"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    celery.received[0].ack()
    wait_until(lambda: celery.ids == ["a", "b", "c"])
    assert set(celery.held) == {"b/1", "c/1"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What claimers ask Redis: "claim N" with the number of requests that they got, and "wait"."""
    made: list[str] = []
    claim, wait = module.claim, redis.Redis.blpop

    def claiming(*arguments: Any) -> list[Claim]:
        claims = claim(*arguments)
        made.append(f"claim {len(claims)}")
        return claims

    def waiting(*arguments: Any) -> Any:
        made.append("wait")
        return wait(*arguments)

    monkeypatch.setattr(module, "claim", claiming)
    monkeypatch.setattr(redis.Redis, "blpop", waiting)
    return made


def test_a_claim_that_leaves_a_slot_free_is_followed_by_a_wait(
    celery: Celery, raw: redis.Redis, calls: list[str]
) -> None:
    queue_up(raw, *named("a"))
    celery.connect()
    wait_until(lambda: len(calls) >= 2)
    assert calls[:2] == ["claim 1", "wait"]
    assert celery.ids == ["a"]  # it was passed on before the wait


def test_a_claim_that_fills_the_slots_is_followed_by_a_claim(
    celery: Celery, raw: redis.Redis, calls: list[str]
) -> None:
    queue_up(raw, *named("a", "b"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    queue_up(raw, *named("c"))
    celery.received[0].ack()
    wait_until(lambda: celery.ids == ["a", "b", "c"])
    assert calls[:2] == ["claim 2", "claim 1"]


def test_nothing_is_claimed_without_a_connection(celery: Celery, raw: redis.Redis) -> None:
    queue_up(raw, *named("a"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a"])
    celery.claimer.stop_claiming([celery.tag("a/1")])  # it runs
    queue_up(raw, *named("b"))
    other = Celery(celery.claimer._settings, 1, ("code",))
    other.connect()
    wait_until(lambda: other.ids == ["b"])
    assert celery.ids == ["a"]
    assert state(raw, "a") == ("held", "1")
    other.claimer.stop_claiming([])


def test_what_no_process_has_started_goes_back_in_order(celery: Celery, raw: redis.Redis) -> None:
    """When the connection is lost, and at a shutdown. It counts as no attempt."""
    queue_up(raw, *named("a", "b", "c"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    celery.claimer.stop_claiming([])
    assert raw.lrange(queue_lists("code")[1], 0, -1) == [b"c", b"b", b"a"]
    assert raw.zcard(held_key("code")) == 0
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b", "a", "b"])
    assert [held.claim.lost for held in celery.claimer.held().values()] == [(), ()]


def test_a_job_that_outlives_the_connection_occupies_its_slot(celery: Celery, raw: redis.Redis) -> None:
    queue_up(raw, *named("a", "b", "c"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    celery.claimer.stop_claiming([celery.tag("a/1")])
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b", "b"])
    assert set(celery.held) == {"a/1", "b/2"}
    celery.received[0].ack()
    wait_until(lambda: celery.ids[3:] == ["c"])


@pytest.mark.parametrize(("circuit_open", "lost"), [(True, 0), (False, 1)])
def test_a_rejected_request_counts_an_attempt_unless_its_circuit_is_open(
    circuit_open: bool, lost: int, celery: Celery, raw: redis.Redis
) -> None:
    queue_up(raw, *named("a"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a"])
    if circuit_open:
        celery.claimer.mark_returned(celery.tag("a/1"))
    celery.received[0].reject(requeue=True)
    wait_until(lambda: celery.ids == ["a", "a"])
    assert len(celery.held["a/2"].claim.lost) == lost


def test_a_paused_queue_waits_and_others_do_not(celery: Celery, raw: redis.Redis) -> None:
    celery.claimer.pause(frozenset({"code"}))
    celery.connect()
    queue_up(raw, *named("a"), request_for(Order(), "search").model_copy(update={"request_id": "b"}))
    wait_until(lambda: celery.ids == ["b"])
    assert state(raw, "a") == ("waiting", "0")
    celery.claimer.pause(frozenset())
    wait_until(lambda: celery.ids == ["b", "a"])


def test_a_claim_whose_answer_was_lost_is_claimed_again(
    celery: Celery, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has moved the requests, and the worker got a time-out. No lease has to expire for them."""
    claim, lost = module.claim, threading.Event()

    def lose_once(*arguments: Any) -> list[Any]:
        found = claim(*arguments)
        if found and not lost.is_set():
            lost.set()
            raise redis.TimeoutError("Timeout reading from socket")
        return found

    monkeypatch.setattr(module, "claim", lose_once)
    queue_up(raw, *named("a", "b"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    assert lost.is_set()
    held = celery.held
    assert {tag: one.claim.lost for tag, one in held.items()} == {"a/2": (), "b/2": ()}


def test_what_could_not_be_given_back_goes_back_later(
    celery: Celery, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection to Redis is lost because Redis is down, so giving back fails just then."""
    queue_up(raw, *named("a", "b", "c"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])

    def down(*_: object) -> None:
        raise redis.ConnectionError("Connection refused")

    monkeypatch.setattr(module, "requeue", down)
    celery.claimer.stop_claiming([celery.tag("b/1")])
    assert state(raw, "a") == ("held", "1")
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b", "a"])
    assert {tag: one.claim.lost for tag, one in celery.held.items()} == {"b/1": (), "a/2": ()}


def test_an_invalid_request_takes_no_slot(
    celery: Celery, raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    for number in range(3):
        put_message(raw, "code", f"odd {number}", "{")
    queue_up(raw, *named("a", "b"))
    celery.connect()
    wait_until(lambda: celery.ids == ["a", "b"])
    assert raw.exists(*(outcome_key(f"odd {number}") for number in range(3))) == 3
    assert len(read_dead_letters(queue_settings.url)) == 3


def test_a_worker_claims_nothing_until_it_is_warm(queue_settings: QueueSettings, raw: redis.Redis) -> None:
    """Its models take minutes to load, and another worker may be idle."""
    warm, asked, received = threading.Event(), threading.Event(), []

    def is_warm() -> bool:
        asked.set()
        return warm.is_set()

    queue_up(raw, *named("a"))
    claimer = Claimer(queue_settings, NAME, ("code",), 1, is_warm)
    claimer.resume(lambda call: call(), received.append)
    claimer.start()
    assert asked.wait(30.0)
    assert state(raw, "a") == ("waiting", "0")
    warm.set()
    wait_until(lambda: received)
    claimer.stop_claiming([])
