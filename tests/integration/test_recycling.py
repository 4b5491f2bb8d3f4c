"""A worker process above its memory limit is replaced, and no job is lost."""

from __future__ import annotations

import asyncio

from conftest import StartWorker
from queue_requests import Notes, ask
from waiting import until

from workers.client.client import QueueClient

TOO_LITTLE_MB = 1  # every process takes more


async def test_a_pool_process_above_its_memory_limit_is_replaced_after_each_job(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    worker = start_worker("code", memory_mb=TOO_LITTLE_MB)
    outcomes = await asyncio.gather(*(ask(client, notes.order(), seed=n) for n in range(4)))
    assert all(outcome.ok for outcome in outcomes)
    assert len(set(notes.starts)) == 4, "four processes"
    assert worker.alive


async def test_a_thread_worker_above_its_memory_limit_finishes_its_jobs_and_ends(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    first = start_worker("search", memory_mb=TOO_LITTLE_MB)
    long = asyncio.create_task(ask(client, notes.order(seconds=15.0), "search"))
    await notes.started()
    await until(lambda: "more than its pool's memory_mb" in first.log.read_text(), 20.0)
    assert first.alive, "its job runs on"
    late = asyncio.create_task(ask(client, notes.order(), "search", seed=1))
    start_worker("search", memory_mb=TOO_LITTLE_MB)
    assert (await late).ok
    assert (await long).ok
    await until(lambda: not first.alive)
    assert len(notes.starts) == 2, "each ran once"
