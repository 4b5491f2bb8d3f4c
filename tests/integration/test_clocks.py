"""Wrong wall clocks of workers change nothing: leases and deadlines go by Redis' clock."""

from __future__ import annotations

import asyncio

import pytest
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import ask

from llmi.load.testbed.clocks import available, shifted
from workers.client.client import QueueClient
from workers.settings import QueueSettings

pytestmark = pytest.mark.skipif(not available(), reason="there is no C compiler")


@pytest.mark.parametrize("kind", ["code", "search"])
async def test_workers_a_minute_off_rerun_nothing_and_expire_nothing(
    kind: str, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    """Jobs of half a minute by their deadline, with a lease much shorter than the workers' clocks are off."""
    for seconds in (60, -60, 0):
        worker([kind], app="queue_app", env=shifted(seconds))
    async with QueueClient(queue_settings) as client:
        orders = [Order(seconds=1.5 * queue_settings.lease_s)] * 3 + [Order()] * 30
        outcomes = await asyncio.gather(*(ask(client, order, kind, timeout_s=30.0) for order in orders))
    assert [outcome for outcome in outcomes if not outcome.ok] == []
    assert {outcome.attempt for outcome in outcomes} == {1}
