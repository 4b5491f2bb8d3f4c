"""What happens to a claim that is renewed, given back, lost or stale, in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis
from queue_requests import LEASE_S, claimed, named
from raw_queue import queue_up

from workers.broker.claims import Claim, claim, renew, requeue, requeue_expired, requeue_unknown
from workers.broker.keys import held_key, outcome_key, record_key
from workers.broker.outcomes import commit
from workers.errors import Cause
from workers.messages import Failure, Outcome, Success

NAMES = ("first", "second", "third")


@pytest.fixture
def three(raw: redis.Redis) -> None:
    """`NAMES` are queued."""
    queue_up(raw, *map(named, NAMES))


# What happens to a claim


Back = Callable[[redis.Redis, list[Claim]], object]
BACK: dict[str, Back] = {
    "returned": lambda raw, held: requeue(raw, held, "returned"),
    "lost": lambda raw, held: requeue(raw, held, "lost"),
    "expired": lambda raw, held: requeue_expired(raw, ["search", "code"]),
    "unknown": lambda raw, held: requeue_unknown(raw, ["search", "code"], "w", []),
}


@pytest.mark.parametrize("way", BACK)
@pytest.mark.parametrize("backwards", [True, False])
def test_requeued_requests_are_claimed_next_in_the_order_of_posting(
    way: str, backwards: bool, raw: redis.Redis
) -> None:
    names = [f"{name}" for name in ("zebra", "ant", "mole")]  # in no order of their ids
    queue_up(raw, *map(named, names), *map(named, NAMES))
    held = claim(raw, ["code"], 3, "w", 0.0 if way == "expired" else LEASE_S)
    BACK[way](raw, held[::-1] if backwards else held)
    assert claimed(raw) == [*names, *NAMES]
    assert raw.zcard(held_key("code")) == 6


@pytest.mark.parametrize(("way", "counted"), [("returned", 0), ("lost", 1), ("expired", 1), ("unknown", 0)])
def test_only_a_loss_counts_as_an_attempt(way: str, counted: int, three: None, raw: redis.Redis) -> None:
    held = claim(raw, ["code"], 1, "w", 0.0)
    BACK[way](raw, held)
    [again] = claim(raw, ["code"], 1, "v", LEASE_S)
    assert (again.request_id, again.attempt) == ("first", 2)
    assert [attempt.worker for attempt in again.lost] == ["w"] * counted
    assert all(abs(attempt.started - time.time()) < 60.0 for attempt in again.lost)


def test_a_lease_is_held_until_it_expires(three: None, raw: redis.Redis) -> None:
    claim(raw, ["code"], 2, "w", LEASE_S)
    assert requeue_expired(raw, ["code"]) == []
    raw.zadd(held_key("code"), {"second": 1})
    [back] = requeue_expired(raw, ["code"])
    assert (back.queue, back.request_id, back.worker) == ("code", "second", "w")
    assert claimed(raw) == ["second", "third"]


def test_a_renewed_lease_does_not_expire(three: None, raw: redis.Redis) -> None:
    held, before = claim(raw, ["code"], 1, "w", 0.0), time.time()
    renewal = renew(raw, held, LEASE_S)
    assert (renewal.lost, renewal.cancelled) == ((), ())
    assert before - 1.0 <= renewal.now <= time.time() + 1.0, "on the clock of Redis"
    assert requeue_expired(raw, ["code"]) == []


def test_a_stale_claim_changes_nothing(three: None, raw: redis.Redis) -> None:
    """Also at the same worker: the number names the claim, not the worker."""
    [stale] = claim(raw, ["code"], 1, "w", 0.0)
    requeue_expired(raw, ["code"])
    [again] = claim(raw, ["code"], 1, "w", LEASE_S)
    before = raw.hgetall(record_key("first")), raw.zrange(held_key("code"), 0, -1, withscores=True)
    assert (again.attempt, again.number == stale.number) == (stale.attempt + 1, False)
    assert renew(raw, [stale], 1000 * LEASE_S).lost == (stale,)
    for why in ("returned", "lost"):
        assert requeue(raw, [stale], why) == []
    assert (raw.hgetall(record_key("first")), raw.zrange(held_key("code"), 0, -1, withscores=True)) == before
    assert renew(raw, [again], LEASE_S).lost == ()


def test_the_claim_of_a_lost_request_is_not_that_of_the_same_request_posted_again(raw: redis.Redis) -> None:
    """Redis lost everything while a job ran; its worker held both claims under one name."""
    queue_up(raw, named("first"))
    [before] = claim(raw, ["code"], 1, "w", LEASE_S)
    raw.flushall()
    queue_up(raw, named("first"))
    [after] = claim(raw, ["code"], 1, "w", LEASE_S)
    assert (before.attempt, after.attempt) == (1, 1)
    assert renew(raw, [before, after], LEASE_S).lost == (before,)


@pytest.mark.parametrize("held", [False, True], ids=["queued again", "held again"])
@pytest.mark.parametrize(
    ("result", "stored"),
    [(Failure(cause=Cause.TIMEOUT), False), (Success(), True)],
    ids=["failure", "success"],
)
def test_a_worker_that_was_silent_stores_no_failure(
    held: bool, result: Success | Failure, stored: bool, three: None, raw: redis.Redis
) -> None:
    [stale] = claim(raw, ["code"], 1, "w", 0.0)
    requeue_expired(raw, ["code"])
    if held:
        claim(raw, ["code"], 1, "v", LEASE_S)
    late = Outcome(request_id="first", kind="code", result=result)
    commit(raw, late, "", 60, stale.number)
    assert bool(raw.exists(outcome_key("first"))) is stored
    assert bool(raw.exists(record_key("first"))) is not stored


def test_what_a_worker_does_not_know_that_it_holds_goes_back(raw: redis.Redis) -> None:
    """The answer to a claim was lost: the worker got a time-out, and Redis had moved the request."""
    queue_up(raw, *map(named, ("known", "unknown", "another's", "next")))
    [known] = claim(raw, ["code"], 1, "w", LEASE_S)
    claim(raw, ["code"], 1, "w", LEASE_S)
    claim(raw, ["code"], 1, "v", LEASE_S)
    assert [one.request_id for one in requeue_unknown(raw, ["search", "code"], "w", [known])] == ["unknown"]
    assert claimed(raw) == ["unknown", "next"]


def test_a_held_request_that_expired_leaves_nothing(three: None, raw: redis.Redis) -> None:
    held = claim(raw, ["code"], 1, "w", 0.0)
    raw.delete(record_key("first"))
    assert renew(raw, held, LEASE_S).lost == tuple(held)
    assert requeue_expired(raw, ["code"]) == []
    assert raw.zcard(held_key("code")) == 0
