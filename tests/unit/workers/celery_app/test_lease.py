"""The thread that renews leases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from workers.broker.claims import Claim
from workers.celery_app.delivery import lease
from workers.celery_app.delivery.claimer import LATE_S, WEDGED_S, Held, kill_after_s
from workers.celery_app.delivery.lease import LeaseRenewer
from workers.settings import QueueSettings

ENOUGH_S = 10.0


def held(left_s: float, limit_s: float | None) -> Held:
    """A claim of now, with `left_s` seconds until its deadline."""
    return Held(Claim("r", 1, "code", b"", left_s=left_s), limit_s)


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseRenewer]:
    """A renewer that renews each millisecond; it waits for no cancellation."""
    monkeypatch.setattr(lease, "beat_s", lambda _lease_s: 0.001)
    monkeypatch.setattr(LeaseRenewer, "_await_cancellation", lambda _self, timeout_s: time.sleep(timeout_s))
    claimer: Any = SimpleNamespace(held=dict)
    renewer = LeaseRenewer(QueueSettings(redis_url="redis://127.0.0.1:1/0"), "w", ["code"], claimer)
    yield renewer
    renewer.stop()


@pytest.mark.parametrize(
    ("left_s", "limit_s", "expected"), [(900.0, 20.0, 20.0), (900.0, None, 900.0), (5.0, 20.0, 5.0)]
)
def test_a_lease_ends_with_the_time_limit_of_its_job(
    left_s: float, limit_s: float | None, expected: float
) -> None:
    one = held(left_s, limit_s)
    assert one.ends == one.since + expected


@pytest.mark.parametrize("passed_s", [-ENOUGH_S, ENOUGH_S])
def test_a_job_over_its_time_is_not_renewed(
    passed_s: float, monkeypatch: pytest.MonkeyPatch, leases: LeaseRenewer
) -> None:
    one = held(60.0, 20.0)
    one.since -= 20.0 + LATE_S + passed_s
    renewed: list[Claim] = []

    def renew(_redis: object, claims: list[Claim], _lease_s: float) -> None:
        renewed.extend(claims)
        raise OSError("that is all")

    monkeypatch.setattr(leases, "_claimer", SimpleNamespace(held=lambda: {"tag": one}))
    monkeypatch.setattr(lease, "renew", renew)
    with pytest.raises(OSError, match="that is all"):
        leases.renew()
    assert renewed == ([one.claim] if passed_s < 0 else [])


def test_a_job_is_killed_after_its_time_and_before_its_lease_ends() -> None:
    assert 20.0 < kill_after_s(held(600.0, 20.0), ["code"]) < 20.0 + LATE_S


@pytest.mark.parametrize("queues", [["diffusion"], ["code", "edit"]])
def test_a_process_that_keeps_a_model_is_killed_only_when_it_is_wedged(queues: list[str]) -> None:
    """Celery kills with SIGKILL; code that runs beside a model must not take that along either."""
    assert kill_after_s(held(600.0, 20.0), queues) == pytest.approx(20.0 + WEDGED_S)


def test_renewing_goes_on_after_any_exception(leases: LeaseRenewer, monkeypatch: pytest.MonkeyPatch) -> None:
    beats, again = iter([ZeroDivisionError("a bug"), OSError("away")]), threading.Event()

    def beat() -> None:
        for error in beats:
            raise error
        again.set()

    monkeypatch.setattr(leases, "renew", beat)
    leases.start()
    assert again.wait(ENOUGH_S)
    leases.stop()
    leases.join(ENOUGH_S)
    assert not leases.is_alive()


def test_stop_waits_for_a_renewal_in_progress(leases: LeaseRenewer, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, may_end, order = threading.Event(), threading.Event(), []

    def beat() -> None:
        under_way.set()
        may_end.wait(ENOUGH_S)
        order.append("beat")

    def end() -> None:
        leases.stop()
        order.append("ended")

    monkeypatch.setattr(leases, "renew", beat)
    leases.start()
    assert under_way.wait(ENOUGH_S)
    ending = threading.Thread(target=end)
    ending.start()
    may_end.set()
    ending.join(ENOUGH_S)
    leases.join(ENOUGH_S)
    assert order[-1] == "ended", order
    assert not leases.is_alive()


def test_leases_of_others_have_time_to_be_renewed_after_an_outage(
    leases: LeaseRenewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for longer than a lease, so all leases have expired. Each job would have run again."""
    sweeps: list[object] = []
    found = SimpleNamespace(lost=(), cancelled=(), now=time.time())
    monkeypatch.setattr(lease, "renew", lambda *_: found)
    monkeypatch.setattr(lease, "requeue_expired", lambda *_: sweeps.append(_) or [])
    monkeypatch.setattr(lease.heartbeat, "renew", lambda *_: None)
    monkeypatch.setattr(lease.reporting, "renew", lambda *_: None)
    pipeline = SimpleNamespace(execute=lambda: None)
    monkeypatch.setattr(leases, "_redis", SimpleNamespace(pipeline=lambda **_: pipeline))
    leases.renew()
    assert len(sweeps) == 1
    leases._wait("Redis is away")
    leases.renew()
    assert len(sweeps) == 1, "requeued what others could renew"
    monkeypatch.setattr(leases, "_sweep_at", time.monotonic())
    leases.renew()
    assert len(sweeps) == 2
