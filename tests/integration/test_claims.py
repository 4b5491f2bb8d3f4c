"""Which request a worker gets next, in a real Redis."""

from __future__ import annotations

import pytest
import redis
from queue_jobs import Order
from queue_requests import LEASE_S, claimed, named, request_for
from raw_queue import make_old, put_entry, queue_up

from workers.broker.claims import AGEING_S, claim
from workers.broker.depths import read_depths
from workers.broker.keys import queue_lists, record_key, wake_key
from workers.messages import HIGH, LOW, NORMAL, Priority, Request
from workers.settings import QueueSettings

NAMES = ("first", "second", "third")


@pytest.fixture
def three(raw: redis.Redis) -> None:
    """`NAMES` are queued."""
    queue_up(raw, *map(named, NAMES))


# The order of claims


def test_requests_are_claimed_in_the_order_of_posting_and_never_more_than_asked(
    three: None, raw: redis.Redis
) -> None:
    assert claimed(raw, 2) == ["first", "second"]
    assert claimed(raw, 2) == ["third"]
    assert claimed(raw, 2) == []


def test_a_higher_level_comes_first_on_all_queues_of_a_worker(raw: redis.Redis) -> None:
    queue_up(raw, named("low", LOW), named("normal"), named("other low", LOW, "search"))
    queue_up(raw, named("other high", HIGH, "search"), named("high", HIGH))
    expected = ["other high", "high", "normal", "low", "other low"]
    assert claimed(raw, 10, ("code", "search")) == expected


@pytest.mark.parametrize(("level", "steps"), [(NORMAL, 1), (LOW, 2)])
def test_a_request_of_a_low_level_does_not_starve(level: Priority, steps: int, raw: redis.Redis) -> None:
    """It comes before those of the first level that were posted `AGEING_S` later for each level between."""
    queue_up(raw, named("early", level), named("late", level), named("high", HIGH))
    make_old(raw, "early", steps * AGEING_S + 5.0)
    make_old(raw, "late", steps * AGEING_S - 5.0)
    assert claimed(raw) == ["early", "high", "late"]


def test_one_call_claims_a_share_of_each_queue_by_age(raw: redis.Redis) -> None:
    for number in range(4):
        queue_up(raw, named(f"code {number}"), named(f"search {number}", kind="search"))
    assert claimed(raw, 3, ("search", "code")) == ["code 0", "search 0", "code 1"]


def test_a_queue_that_a_worker_does_not_name_is_left_alone(three: None, raw: redis.Redis) -> None:
    assert claimed(raw, 10, ("search",)) == []
    assert read_depth(raw)[:2] == (3, 0)


def read_depth(raw: redis.Redis, queue: str = "code") -> tuple[int, int, tuple[int, ...]]:
    host = raw.connection_pool.connection_kwargs
    depth = read_depths(f"redis://{host['host']}:{host['port']}/0")[queue]
    return depth.waiting, depth.running, depth.by_level


def test_depths_are_those_of_each_level(raw: redis.Redis) -> None:
    queue_up(raw, named("a", HIGH), named("b"), named("c"), named("d", LOW), named("e", LOW), named("f", LOW))
    assert read_depth(raw) == (6, 0, (1, 2, 3))
    claimed(raw, 2)
    assert read_depth(raw) == (4, 2, (0, 1, 3))


def test_the_age_of_a_queue_is_that_of_its_next_request(
    three: None, raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    make_old(raw, "first", 50.0)
    assert 50.0 <= read_depths(queue_settings.url)["code"].oldest_s < 60.0
    claimed(raw, 3)
    assert read_depths(queue_settings.url)["code"].oldest_s == 0.0


def test_a_claim_carries_its_request_and_durations(raw: redis.Redis) -> None:
    request = request_for(Order(), timeout_s=100.0).model_copy(update={"limit_s": 40.0})
    queue_up(raw, request, reply_to="llmi:replies:x")
    make_old(raw, request.request_id, 7.0)
    [held] = claim(raw, ["code"], 1, "w", LEASE_S)
    assert Request.model_validate_json(held.message) == request
    assert (held.request_id, held.attempt, held.queue) == (request.request_id, 1, "code")
    assert (held.reply_to, held.lost) == ("llmi:replies:x", ())
    assert 7.0 <= held.age_s < 37.0
    assert 70.0 < held.left_s <= 100.0
    assert 30.0 < held.start_left_s <= 60.0


# Entries that name no request of the queue


def test_an_entry_that_is_no_id_is_removed(three: None, raw: redis.Redis) -> None:
    put_entry(raw, "code", b"\xff" * 200)
    put_entry(raw, "code", "short but unknown")
    found = claim(raw, ["code"], 10, "w", LEASE_S)
    assert [one.request_id for one in found if one.number] == list(NAMES)
    assert [(one.number, one.queue, one.message) for one in found if not one.number] == [
        (0, "code", b"\xff" * 200)
    ]
    assert raw.llen("code") == 0


def test_many_entries_without_a_request_hold_up_nobody(raw: redis.Redis) -> None:
    """One call skips a bounded number; then the worker is woken at once to go on."""
    raw.lpush(queue_lists("code")[1], *(f"cancelled {number}" for number in range(2500)))
    queue_up(raw, named("last"))
    for _ in range(3):
        assert raw.delete(wake_key("code")) == 1, "nothing wakes a worker"
        if found := claimed(raw):
            break
    assert found == ["last"]


def test_an_entry_of_a_request_that_was_posted_again_elsewhere_is_skipped(raw: redis.Redis) -> None:
    """A cancelled request leaves its entry; the same id may be posted again with another priority."""
    queue_up(raw, named("moved", LOW), named("other", LOW))
    raw.delete(record_key("moved"))  # as `commit.lua` does
    queue_up(raw, named("moved", HIGH))
    assert claimed(raw) == ["moved", "other"]
    assert sum(raw.llen(key) for key in queue_lists("code")) == 0


def test_a_request_that_expired_in_its_queue_is_skipped(three: None, raw: redis.Redis) -> None:
    raw.pexpire(record_key("first"), 1)
    while raw.exists(record_key("first")):
        pass
    assert claimed(raw) == ["second", "third"]
