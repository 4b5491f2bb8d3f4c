"""A worker process that takes more memory than it may makes way for a new one, and no job is lost for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from conftest import TESTS, WORKER_START_S
from queue_requests import Notes, ask, until

from workers.client import QueueClient
from workers.process import WorkerProcess
from workers.settings import QueueSettings


@pytest.fixture
def greedy(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`greedy(kind)` starts a worker that always takes more than it may."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    started: list[WorkerProcess] = []

    def start(kind: str) -> WorkerProcess:
        name = f"{kind}-{tmp_path.name}-{len(started)}"
        log = tmp_path / f"{name}.log"
        worker = WorkerProcess([kind], config_file, 1, log, name, app="queue_app", memory_mb=1)
        started.append(worker)
        worker.start()
        worker.wait_ready(WORKER_START_S)
        return worker

    yield start
    for worker in started:
        worker.kill()


async def test_each_job_gets_a_pool_process_of_its_own(
    greedy, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    worker = greedy("code")
    outcomes = await asyncio.gather(*(ask(client, notes.order(), seed=n) for n in range(4)))
    assert all(outcome.ok for outcome in outcomes)
    assert len(set(notes.starts)) == 4, "four processes"
    assert worker.alive


async def test_a_worker_of_threads_ends_after_its_jobs_and_another_goes_on(
    greedy, client: QueueClient, notes: Notes
) -> None:
    first = greedy("search")
    long = asyncio.create_task(ask(client, notes.order(seconds=15.0), "search"))
    await notes.started()
    await until(lambda: "more than its pool's memory_mb" in first.log.read_text(), 20.0)
    assert first.alive, "its job runs on"
    late = asyncio.create_task(ask(client, notes.order(), "search", seed=1))
    greedy("search")
    assert (await late).ok
    assert (await long).ok
    await until(lambda: not first.alive)
    assert len(notes.starts) == 2, "each ran once"
