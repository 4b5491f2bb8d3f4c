"""Which request a worker gets next, what happens to a claim, and what a status costs, in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from queue_jobs import Order
from queue_requests import request_for
from raw_queue import make_old, put_entry, queue_up

from workers.broker import claims
from workers.broker.claims import AGEING_S, Claim, claim, renew, requeue, requeue_expired, requeue_unknown
from workers.broker.depths import read_depths
from workers.broker.keys import held_key, outcome_key, queue_lists, record_key, wake_key
from workers.broker.outcomes import commit
from workers.broker.posting import post, prepare
from workers.broker.request_status import find_request
from workers.errors import Cause
from workers.messages import HIGH, LOW, NORMAL, Failure, Outcome, Priority, Request, Success
from workers.settings import QueueSettings

LEASE_S = 60.0
NAMES = ("first", "second", "third")


@pytest.fixture
def raw(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


def named(name: str, priority: Priority = NORMAL, kind: str = "code", timeout_s: float = 600.0) -> Request:
    request = request_for(Order(), kind, timeout_s)
    return request.model_copy(update={"request_id": name, "priority": priority})


@pytest.fixture
def three(raw: redis.Redis) -> None:
    """`NAMES` are queued."""
    queue_up(raw, *map(named, NAMES))


def claimed(raw: redis.Redis, count: int = 10, queues: tuple[str, ...] = ("code",)) -> list[str]:
    return [one.request_id for one in claim(raw, queues, count, "w", LEASE_S)]


def calls(raw: redis.Redis) -> dict[str, int]:
    """How often each command was called since `CONFIG RESETSTAT`, also by scripts."""
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in raw.info("commandstats").items()}


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


@pytest.mark.parametrize(("level", "steps"), [(NORMAL, 3), (LOW, 6)])
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
    assert (held.request_id, held.number, held.queue) == (request.request_id, 1, "code")
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
    assert (again.request_id, again.number) == ("first", 2)
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
    assert again.number == stale.number + 1
    assert renew(raw, [stale], 1000 * LEASE_S).lost == ("first",)
    for why in ("returned", "lost"):
        assert requeue(raw, [stale], why) == []
    assert (raw.hgetall(record_key("first")), raw.zrange(held_key("code"), 0, -1, withscores=True)) == before
    assert renew(raw, [again], LEASE_S).lost == ()


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
    late = Outcome(request_id="first", kind="code", result=result, attempt=stale.number)
    commit(raw, late, "", 60)
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
    assert renew(raw, held, LEASE_S).lost == ("first",)
    assert requeue_expired(raw, ["code"]) == []
    assert raw.zcard(held_key("code")) == 0


# Posting


def test_posting_what_is_queued_or_held_updates_it(three: None, raw: redis.Redis) -> None:
    changed = named("first", timeout_s=1000.0)

    def again() -> str:
        (answer,) = post(raw, [prepare(changed, "llmi:replies:y", time.time())], 3, keep_failures=False)
        return answer.state

    assert again() == "waiting"
    [held] = claim(raw, ["code"], 1, "w", LEASE_S)
    assert held.reply_to == "llmi:replies:y"
    assert 900.0 < held.left_s <= 1000.0
    assert again() == "running"
    assert claimed(raw) == ["second", "third"]


def test_a_queue_holds_no_more_than_its_limit_over_all_levels(raw: redis.Redis) -> None:
    levels: list[Priority] = [HIGH, LOW, NORMAL, HIGH]
    posts = [prepare(named(f"r{n}", level), "", time.time()) for n, level in enumerate(levels)]
    answers = post(raw, posts, 3, keep_failures=True)
    assert [(one.state, one.length) for one in answers] == [
        ("posted", 1), ("posted", 2), ("posted", 3), ("full", 3)
    ]  # fmt: skip
    assert raw.exists(record_key("r3")) == 0


# Status


def test_the_status_says_how_many_are_before(raw: redis.Redis, queue_settings: QueueSettings) -> None:
    queue_up(raw, named("low", LOW), *map(named, NAMES), named("high", HIGH))
    before = {n: find_request(queue_settings.url, queue_settings, n, "code").before for n in (*NAMES, "low")}
    assert before == {"first": 1, "second": 2, "third": 3, "low": 4}
    held = claim(raw, ["code"], 2, "w", LEASE_S)
    assert find_request(queue_settings.url, queue_settings, "third", "code").before == 1
    requeue(raw, held, "returned")
    assert find_request(queue_settings.url, queue_settings, "third", "code").before == 3
    assert find_request(queue_settings.url, queue_settings, "first", "code").before == 1


def test_the_status_of_one_of_20000_waiting_requests_reads_no_list(
    raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    """The commands do not depend on what is queued, and none reads the entries of a list."""

    def status_calls(name: str) -> dict[str, int]:
        raw.config_resetstat()
        status = find_request(queue_settings.url, queue_settings, name, "code")
        assert status.state == "unserved"
        return calls(raw)

    queue_up(raw, named("alone"))
    find_request(queue_settings.url, queue_settings, "alone", "code")  # loads the script
    few = status_calls("alone")
    now = time.time()
    posts = [prepare(named(f"r{number}"), "", now) for number in range(20_000)]
    for first in range(0, len(posts), 500):
        post(raw, posts[first : first + 500], 30_000, keep_failures=True)
    assert status_calls("r12345") == few
    assert not {"lrange", "lindex", "lpos", "keys"} & few.keys()
    assert few["llen"] <= len(queue_lists("code"))
    assert find_request(queue_settings.url, queue_settings, "r12345", "code").before == 12346


def test_a_claim_reads_no_more_when_more_waits(raw: redis.Redis) -> None:
    def claim_calls() -> dict[str, int]:
        raw.config_resetstat()
        assert len(claimed(raw, 2)) == 2
        return calls(raw)

    queue_up(raw, *(named(f"r{number}") for number in range(100)))
    claimed(raw, 1)
    many = claim_calls()
    claimed(raw, 90)
    assert claim_calls() == many
    assert claims.AGEING_S == AGEING_S > 0
