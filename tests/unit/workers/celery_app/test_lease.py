"""The thread that renews leases, and the time limits of jobs."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from workers.celery_app import lease
from workers.celery_app.lease import LeaseRenewer, must_end_by
from workers.settings import QueueSettings

ENOUGH_S = 10.0


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> LeaseRenewer:
    monkeypatch.setattr(lease, "beat_s", lambda _lease_s: 0.001)
    return LeaseRenewer(QueueSettings())


def asked(deadline: float, limit_s: float | None) -> SimpleNamespace:
    """A Celery request with a message of ours."""
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={"code": None})))
    return SimpleNamespace(
        app=app, args=[{"deadline": deadline, "limit_s": limit_s}], time_limits=(1.0, None)
    )


@pytest.mark.parametrize(
    ("limit_s", "started", "over"),
    [(20.0, 100.0, 120.0), (20.0, None, 1000.0), (None, 100.0, 1000.0), (20.0, 995.0, 1000.0)],
)
def test_a_lease_ends_with_the_time_limit_of_its_job(
    limit_s: float | None, started: float | None, over: float
) -> None:
    assert must_end_by(asked(1000.0, limit_s), started) == over


@pytest.mark.parametrize("message", [None, 7, [], {}, {"deadline": "soon"}, {"deadline": 1, "limit_s": "x"}])
def test_the_lease_of_a_message_without_limits_never_ends(message: object) -> None:
    assert must_end_by(SimpleNamespace(args=[message]), 0.0) == float("inf")


def test_celerys_hard_limit_is_the_time_limit_of_the_job() -> None:
    request = asked(time.time() + 600.0, 20.0)
    lease.set_time_limit(request)
    assert request.time_limits[0] == pytest.approx(20.0, abs=lease.GRACE_S)


@pytest.mark.parametrize("queues", [{"diffusion": None}, {"code": None, "edit": None}])
def test_a_process_that_keeps_a_model_has_no_hard_limit(queues: dict[str, None]) -> None:
    """Celery enforces one with SIGKILL; code that runs beside a model must not take that along either."""
    request = asked(time.time() + 600.0, 20.0)
    request.app.amqp.queues.consume_from = queues
    lease.set_time_limit(request)
    assert request.time_limits == (None, None)


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
