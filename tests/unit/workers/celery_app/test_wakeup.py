"""The event loop wakes when a job in a thread ends, and a prefork pool keeps its state when it reconnects."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.thread import TaskPool as Threads
from celery.worker.request import Request
from kombu.asynchronous import Hub

from workers.celery_app import app
from workers.celery_app.request import JobRequest, JobTask
from workers.celery_app.wakeup import WakeUp, restore_pool_state
from workers.settings import QueueSettings


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The event loop of a worker with a thread pool."""
    monkeypatch.setattr(WakeUp, "_eventfd", -1)
    loop = Hub()
    pool = object.__new__(Threads)
    WakeUp(SimpleNamespace()).start(SimpleNamespace(pool=pool, hub=loop))
    yield loop
    loop.close()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("end", ["acknowledge", "reject"])
def test_the_end_of_a_job_in_a_thread_wakes_the_loop(
    end: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(Request, end, lambda _self, **_options: ended.append(end))
    woken = threading.Event()
    hub.add_reader(WakeUp._eventfd, lambda: (woken.set(), WakeUp._clear()))
    threading.Thread(target=getattr(object.__new__(JobRequest), end)).start()
    hub.run_once()  # without a wake-up it waits for ever
    assert woken.is_set()
    assert ended == [end], "Celery has counted the job before the loop wakes"


def test_a_prefork_pool_gets_back_its_time_limits_and_its_busy_processes() -> None:
    limits: list[tuple[Any, float]] = []
    now = time.monotonic()

    def job(accepted: bool, timeout: float | None, pid: int) -> SimpleNamespace:
        return SimpleNamespace(
            _accepted=accepted, _timeout=timeout, _time_accepted=now - 5.0, _worker_pid=pid
        )

    limited, unlimited, waiting = job(True, 100.0, 1), job(True, None, 2), job(False, 100.0, 0)
    pool = SimpleNamespace(
        _pool=[SimpleNamespace(pid=pid, inqW_fd=pid + 10) for pid in (1, 2, 3)],
        _cache={1: limited, 2: unlimited, 3: waiting},
        _busy_workers=set(),
        on_timeout_set=lambda running, _soft, hard_s: limits.append((running, hard_s)),
    )
    restore_pool_state(SimpleNamespace(_pool=pool))
    assert pool._busy_workers == {11, 12}
    [(running, left_s)] = limits
    assert running is limited
    assert 95.0 - (time.monotonic() - now) <= left_s <= 95.0


def test_workers_use_them() -> None:
    celery = app.make_app(QueueSettings())
    assert celery.Task.Request == JobTask.Request == f"{JobRequest.__module__}:{JobRequest.__qualname__}"
    assert WakeUp in app.app.steps["consumer"]
