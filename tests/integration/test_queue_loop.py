"""The client's event loop does not block while it waits for slow jobs."""

from __future__ import annotations

import asyncio

from conftest import StartWorker
from queue_jobs import Order
from queue_requests import ask, heartbeat

from workers.client.client import QueueClient

REQUESTS, THREADS = 64, 16
JOB_S = 0.6  # a loop that waits for a single one of them stands still for longer than the bound
STALL_S = 0.25
BURSTS = 3  # the best one counts: others use this machine too, but a call that blocks does so in each


async def test_waiting_for_slow_jobs_does_not_block_the_loop(
    start_worker: StartWorker, client: QueueClient
) -> None:
    """Regression: the original made blocking calls inside `async def`."""
    start_worker("search", THREADS)
    assert (await ask(client, Order(), "search")).ok
    stalls: list[float] = []
    while len(stalls) < BURSTS and min(stalls, default=STALL_S) >= STALL_S:
        async with heartbeat() as heart:
            work = [ask(client, Order(seconds=JOB_S), "search", seed=seed) for seed in range(REQUESTS)]
            outcomes = await asyncio.gather(*work)
        assert all(outcome.ok for outcome in outcomes)
        stalls.append(heart.largest_s)
    assert min(stalls) < STALL_S, f"the loop stood still for {stalls} s"
