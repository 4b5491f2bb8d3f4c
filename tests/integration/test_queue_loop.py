"""The client's event loop does not block while it waits for slow jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import StartWorker
from queue_requests import Notes, ask

from workers.client.client import QueueClient

REQUESTS, THREADS = 64, 16


async def test_waiting_for_slow_jobs_does_not_block_the_loop(
    start_worker: StartWorker, client: QueueClient, notes: Notes, tmp_path: Path
) -> None:
    """Regression: the original made blocking calls inside `async def`.

    The jobs end only when the loop creates a file, so a client that blocks the loop would never get an
    outcome.
    """
    start_worker("search", THREADS)
    gate = tmp_path / "gate"
    orders = [notes.order(after=str(gate)) for _ in range(REQUESTS)]
    outcomes = asyncio.gather(*(ask(client, order, "search", seed=seed) for seed, order in enumerate(orders)))
    await notes.started(THREADS)
    assert client.in_flight == REQUESTS
    gate.touch()
    assert all(outcome.ok for outcome in await outcomes)
