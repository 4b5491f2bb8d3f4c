"""A job asks Redis whether it was cancelled, seldom, and never waits for a Redis that is away."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from workers.broker import cancellation
from workers.broker.cancellation import BACKOFF_S, POLL_S, CancellationCheck


class Server:
    """What Redis answers, and when it was asked."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.away = False
        self.asked = 0

    def exists(self, key: str) -> int:
        self.asked += 1
        if self.away:
            raise redis.ConnectionError("away")
        return int(key in self.keys)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(cancellation, "_redis", lambda _process: made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made: Any = Clock()
    monkeypatch.setattr(cancellation, "time", made)
    return made


def test_a_stored_outcome_ends_a_job_and_that_stays_so(server: Server, clock: Clock) -> None:
    look = CancellationCheck("r", 1)
    assert not look()
    server.keys.add("llmi:outcome:r")
    clock.now += POLL_S
    assert look()
    server.keys.clear()
    clock.now += POLL_S
    assert look()


def test_another_requests_outcome_says_nothing(server: Server, clock: Clock) -> None:
    server.keys.add("llmi:outcome:other")
    assert not CancellationCheck("r", 1)()


def test_redis_is_asked_seldom_however_short_the_steps_are(server: Server, clock: Clock) -> None:
    look = CancellationCheck("r", 1)
    for _ in range(1000):
        look()
        clock.now += POLL_S / 100
    assert server.asked <= 11


def test_a_redis_that_is_away_means_no_and_holds_up_once(server: Server, clock: Clock) -> None:
    look, server.away = CancellationCheck("r", 1), True
    assert not look()
    clock.now += BACKOFF_S / 2
    assert not look()
    assert server.asked == 1
    server.away = False
    server.keys.add("llmi:outcome:r")
    clock.now += BACKOFF_S
    assert look()
