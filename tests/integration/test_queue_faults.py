"""Whatever dies, a request ends in exactly one visible outcome: workers, their children, Redis itself."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import alive, ask, request_for, starts, until

from coordinator.redis_server import EmbeddedRedis
from workers.client import QueueClient
from workers.errors import Cause
from workers.messages import Failure, Outcome
from workers.settings import REDIS_ENV, QueueSettings

REDELIVERY_S = 15.0


async def test_a_killed_child_costs_one_attempt_and_no_outcome(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    notes, told = tmp_path / "notes", []
    async with QueueClient(queue_settings, on_outcome=told.append) as client:
        outcome = await ask(client, Order(act="die_once", notes=str(notes)))
    assert outcome.ok
    assert told == [outcome]
    assert len(starts(notes)) == 2


async def test_a_job_that_kills_every_worker_is_given_up(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    notes = tmp_path / "notes"
    async with QueueClient(queue_settings) as client:
        outcome = await ask(client, Order(act="die", notes=str(notes)))
        assert isinstance(outcome.result, Failure)
        assert outcome.result.cause is Cause.WORKER_LOST
        assert len(starts(notes)) == queue_settings.max_attempts
        assert (await ask(client, Order())).ok, "the worker no longer works"


async def test_a_killed_workers_job_goes_to_another(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    workers = [worker(["code"], app="queue_app") for _ in range(2)]
    notes = tmp_path / "notes"
    told: list[Outcome] = []
    async with QueueClient(queue_settings, on_outcome=told.append) as client:
        posted = await client.post(request_for(Order(act="hang_once", notes=str(notes))))
        await until(lambda: len(starts(notes)) == 1)
        parent = psutil.Process(starts(notes)[0]).ppid()
        next(process for process in workers if process.pid == parent).kill()
        await until(lambda: len(starts(notes)) == 2, REDELIVERY_S)
        assert (await posted.outcome()).ok
    assert len(told) == 1


async def test_children_die_with_a_killed_parent(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    process = worker(["code"], app="queue_app")
    notes = tmp_path / "notes"
    async with QueueClient(queue_settings) as client:
        await client.post(request_for(Order(seconds=60.0, notes=str(notes))))
        await until(lambda: len(starts(notes)) == 1)
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not alive(starts(notes)[0]), 5.0)


async def test_a_job_longer_than_the_lease_runs_once(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    worker(["code"], app="queue_app")
    notes = tmp_path / "notes"
    async with QueueClient(queue_settings) as client:
        order = Order(seconds=queue_settings.lease_s * 1.5, notes=str(notes))
        assert (await ask(client, order)).ok
    assert len(starts(notes)) == 1


async def test_a_job_past_its_deadline_is_killed_and_frees_its_worker(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    notes = tmp_path / "notes"
    async with QueueClient(queue_settings) as client:
        late = await ask(client, Order(seconds=60.0, notes=str(notes)), timeout_s=1.0)
        assert isinstance(late.result, Failure)
        assert late.result.cause is Cause.TIMEOUT
        assert (await ask(client, Order(), timeout_s=10.0)).ok
    assert not alive(starts(notes)[0])


async def test_a_request_that_waited_too_long_is_never_started(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    notes = tmp_path / "notes"
    async with QueueClient(queue_settings) as client:
        outcome = await ask(client, Order(notes=str(notes)), timeout_s=-1.0)
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is Cause.TIMEOUT
    assert starts(notes) == []


async def test_without_any_worker_the_deadline_decides(queue_settings: QueueSettings) -> None:
    async with QueueClient(queue_settings) as client:
        outcome = await ask(client, Order(), timeout_s=0.2)
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is Cause.TIMEOUT


async def test_a_message_lost_in_a_frozen_worker_is_posted_again(
    tmp_path: Path, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    frozen = worker(["code"], app="queue_app")
    os.kill(frozen.pid, signal.SIGSTOP)
    async with QueueClient(queue_settings) as client:
        posted = await client.post(request_for(Order(notes=str(tmp_path / "notes"))))
        with redis.Redis.from_url(queue_settings.url) as raw:
            await until(lambda: raw.llen("code") == 0)
            frozen.kill()
            assert raw.hlen("unacked") == 0, "it was not lost"
        worker(["code"], app="queue_app")
        assert (await posted.outcome()).ok


@pytest.mark.parametrize("kind", ["code", "search"])
async def test_a_killed_redis_loses_no_accepted_request(
    kind: str,
    tmp_path: Path,
    worker: StartWorker,
    queue_settings: QueueSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        monkeypatch.setenv(REDIS_ENV, server.url)
        worker([kind], 2, app="queue_app")
        told: list[Outcome] = []
        async with QueueClient(queue_settings, on_outcome=told.append) as client:
            work = [await client.post(request_for(Order(seconds=0.05), kind)) for _ in range(60)]
            await until(lambda: len(told) >= 5)
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.start)
            outcomes = await asyncio.gather(*(posted.outcome() for posted in work))
    assert [outcome.result for outcome in outcomes if not outcome.ok] == []
    assert len(told) == 60
