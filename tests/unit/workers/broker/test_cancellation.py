"""A job polls Redis for its cancellation, rarely, and does not wait for a Redis that is down."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from workers.broker import cancellation
from workers.broker.cancellation import BACKOFF_S, POLL_S, CancellationCheck


class Server:
    """A client of Redis; `polls` counts the calls."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.down = False
        self.polls = 0

    def exists(self, key: str) -> int:
        self.polls += 1
        if self.down:
            raise redis.ConnectionError("down")
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


def test_a_stored_outcome_cancels_a_job_for_good(server: Server, clock: Clock) -> None:
    check = CancellationCheck("r", 1)
    assert not check()
    server.keys.add("llmi:outcome:r")
    clock.now += POLL_S
    assert check()
    server.keys.clear()
    clock.now += POLL_S
    assert check()


def test_the_outcome_of_another_request_does_not_count(server: Server, clock: Clock) -> None:
    server.keys.add("llmi:outcome:other")
    assert not CancellationCheck("r", 1)()


def test_redis_is_polled_rarely_however_short_the_steps_are(server: Server, clock: Clock) -> None:
    check = CancellationCheck("r", 1)
    for _ in range(1000):
        check()
        clock.now += POLL_S / 100
    assert server.polls <= 11


def test_a_redis_that_is_down_means_not_cancelled_and_delays_once(server: Server, clock: Clock) -> None:
    check, server.down = CancellationCheck("r", 1), True
    assert not check()
    clock.now += BACKOFF_S / 2
    assert not check()
    assert server.polls == 1
    server.down = False
    server.keys.add("llmi:outcome:r")
    clock.now += BACKOFF_S
    assert check()
