"""Posting again, the status of a request, and commands that do not grow with the queue, in a real Redis."""

from __future__ import annotations

import time

import pytest
import redis
from queue_requests import LEASE_S, claimed, named
from raw_queue import queue_up

from workers.broker import claims
from workers.broker.claims import AGEING_S, claim, requeue
from workers.broker.keys import queue_lists, record_key
from workers.broker.posting import post, prepare
from workers.broker.request_status import find_request
from workers.messages import HIGH, LOW, NORMAL, Priority
from workers.settings import QueueSettings

NAMES = ("first", "second", "third")


@pytest.fixture
def three(raw: redis.Redis) -> None:
    """`NAMES` are queued."""
    queue_up(raw, *map(named, NAMES))


def calls(raw: redis.Redis) -> dict[str, int]:
    """How often each command was called since `CONFIG RESETSTAT`, also by scripts."""
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in raw.info("commandstats").items()}


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
