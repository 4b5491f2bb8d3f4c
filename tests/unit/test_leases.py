"""The thread that renews leases: what it meets does not end it, and once ended it beats no more."""

from __future__ import annotations

import threading

import pytest

from workers import lease
from workers.lease import Leases
from workers.settings import QueueSettings

ENOUGH_S = 10.0


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setattr(lease, "beat_s", lambda _lease_s: 0.001)
    return Leases(QueueSettings())


def test_whatever_a_beat_meets_the_next_one_comes(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, again = iter([ZeroDivisionError("a bug"), OSError("away")]), threading.Event()

    def beat() -> None:
        for error in beats:
            raise error
        again.set()

    monkeypatch.setattr(leases, "beat", beat)
    leases.start()
    assert again.wait(ENOUGH_S)
    leases.end()
    leases.join(ENOUGH_S)
    assert not leases.is_alive()


def test_an_end_waits_for_the_beat_that_is_under_way(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, may_end, order = threading.Event(), threading.Event(), []

    def beat() -> None:
        under_way.set()
        may_end.wait(ENOUGH_S)
        order.append("beat")

    def end() -> None:
        leases.end()
        order.append("ended")

    monkeypatch.setattr(leases, "beat", beat)
    leases.start()
    assert under_way.wait(ENOUGH_S)
    ending = threading.Thread(target=end)
    ending.start()
    may_end.set()
    ending.join(ENOUGH_S)
    leases.join(ENOUGH_S)
    assert order[-1] == "ended", order
    assert not leases.is_alive()
