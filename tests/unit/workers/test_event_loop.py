"""Threads that wait for coroutines of the process's event loop, and resources that belong to a loop."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from workers import event_loop
from workers.errors import Cause, InfrastructureFault
from workers.event_loop import PerLoop, process_loop, run, stop

SOON_S, LATER_S = 0.2, 60.0


class Work:
    """A coroutine that never ends by itself. `started` and `cancelled` tell what happened to it."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def never(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture(autouse=True)
def own_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(event_loop, "BACKSTOP_S", 0.1)
    yield
    stop()


def in_seconds(seconds: float) -> float:
    return time.time() + seconds


async def seven() -> int:
    return 7


async def late() -> None:
    raise TimeoutError


async def broken() -> None:
    raise ZeroDivisionError


def test_the_result_and_the_error_of_the_work_are_those_of_run() -> None:
    assert run(seven(), in_seconds(LATER_S)) == 7
    with pytest.raises(ZeroDivisionError):
        run(broken(), in_seconds(LATER_S))


@pytest.mark.parametrize("deadline_s", [SOON_S, 0.0, -100.0])
def test_work_past_its_deadline_is_cancelled(deadline_s: float) -> None:
    work = Work()
    with pytest.raises(InfrastructureFault) as caught:
        run(work.never(), in_seconds(deadline_s))
    assert caught.value.cause is Cause.TIMEOUT
    wait_until(lambda: not asyncio.all_tasks(process_loop()))
    assert work.cancelled.is_set() or not work.started.is_set()


def test_a_time_out_of_the_work_is_an_infrastructure_failure() -> None:
    with pytest.raises(InfrastructureFault) as caught:
        run(late(), in_seconds(LATER_S))
    assert caught.value.cause is Cause.TIMEOUT


def test_the_work_of_a_cancelled_request_is_cancelled() -> None:
    work = Work()
    with pytest.raises(InfrastructureFault) as caught:
        run(work.never(), in_seconds(LATER_S), work.started.is_set)
    assert caught.value.cause is Cause.CANCELLED
    assert work.cancelled.wait(LATER_S)


def test_work_is_cancelled_when_its_thread_is_interrupted() -> None:
    """By Celery's soft time limit, or Ctrl-C."""
    work = Work()

    def interrupted() -> bool:
        assert work.started.wait(LATER_S)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(work.never(), in_seconds(LATER_S), interrupted)
    assert work.cancelled.wait(LATER_S)


def test_work_that_ignores_its_cancellation_does_not_hold_the_thread() -> None:
    ignored, over = threading.Event(), threading.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                ignored.set()

    with pytest.raises(InfrastructureFault):
        run(stubborn(), in_seconds(SOON_S))
    assert ignored.wait(LATER_S)
    over.set()


def test_a_blocked_loop_does_not_hold_the_thread() -> None:
    over = threading.Event()

    async def blocking() -> None:
        over.wait(LATER_S)

    with pytest.raises(InfrastructureFault) as caught:
        run(blocking(), in_seconds(SOON_S))
    assert caught.value.cause is Cause.TIMEOUT
    over.set()


def test_all_threads_use_one_loop() -> None:
    async def here() -> int:
        return id(asyncio.get_running_loop())

    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(run(here(), in_seconds(LATER_S)))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {id(process_loop())}
    assert len(found) == 20
    assert [one.name for one in threading.enumerate()].count("event-loop") == 1


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    assert run(seven(), in_seconds(LATER_S)) == 7
    forked = multiprocessing.get_context("fork")
    answers = forked.SimpleQueue()

    def child() -> None:
        answers.put(run(seven(), in_seconds(LATER_S)))

    process = forked.Process(target=child)
    process.start()
    process.join(LATER_S)
    assert (process.exitcode, answers.get()) == (0, 7)
    assert run(seven(), in_seconds(LATER_S)) == 7


def test_a_loop_that_a_coroutine_ended_is_replaced() -> None:
    """A provider of a package may call `sys.exit`; asyncio lets that end the loop."""

    async def leave() -> None:
        sys.exit(1)

    thread_of_loop = run(_thread(), in_seconds(LATER_S))
    with pytest.raises(InfrastructureFault):
        run(leave(), in_seconds(SOON_S))
    thread_of_loop.join(LATER_S)
    assert run(_thread(), in_seconds(LATER_S)) is not thread_of_loop


async def _thread() -> threading.Thread:
    return threading.current_thread()


def test_stopping_cancels_the_work_and_ends_the_thread() -> None:
    work, loop = Work(), process_loop()
    asyncio.run_coroutine_threadsafe(work.never(), loop)
    assert work.started.wait(LATER_S)
    stop()
    assert work.cancelled.is_set()
    wait_until(lambda: not loop.is_running())
    assert process_loop() is not loop


class Resource:
    made: list[Resource] = []  # noqa: RUF012 - reset by the fixture

    def __init__(self) -> None:
        self.loop, self.closed_on = asyncio.get_running_loop(), None
        Resource.made.append(self)

    async def close(self) -> None:
        self.closed_on: Any = asyncio.get_running_loop()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Resource]:
    fresh: list[Resource] = []
    monkeypatch.setattr(Resource, "made", fresh)
    return fresh


def test_each_loop_makes_its_resource_once_and_closes_it(made: list[Resource]) -> None:
    resource = PerLoop(Resource, Resource.close)

    async def use() -> list[Resource]:
        return await asyncio.gather(*(resource.get() for _ in range(10)))

    first, second = asyncio.run(use()), asyncio.run(use())
    assert len(set(first)) == len(set(second)) == 1
    shared = run(use(), in_seconds(LATER_S)) + run(use(), in_seconds(LATER_S))
    assert [first[0], second[0], shared[0]] == made
    assert set(shared) == {made[2]}
    assert [one.closed_on for one in made] == [made[0].loop, made[1].loop, None]
    stop()
    assert made[2].closed_on is made[2].loop


def test_a_resource_that_could_not_be_made_is_made_by_the_next_call(made: list[Resource]) -> None:
    failures = iter([OSError("no inotify")])

    def make() -> Resource:
        for failure in failures:
            raise failure
        return Resource()

    resource = PerLoop(make, Resource.close)
    with pytest.raises(OSError, match="inotify"):
        run(resource.get(), in_seconds(LATER_S))
    assert run(resource.get(), in_seconds(LATER_S)) is made[0]
