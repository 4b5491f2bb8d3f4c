"""Every kind of end comes back as one typed outcome, through real Redis and real workers of both pools."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import StartWorker
from queue_jobs import Order

from workers.client import QueueClient
from workers.errors import Cause, Fault
from workers.messages import Failure, Outcome, Request
from workers.settings import QueueSettings

WAIT_S = 30.0


async def ask(
    client: QueueClient, kind: str, order: Order, timeout_s: float = WAIT_S, seed: int = 0
) -> Outcome:
    posted = await client.post(Request.make(kind, order, timeout_s=timeout_s, seed=seed))
    return await posted.outcome()


@pytest.mark.parametrize("kind", ["code", "search"])
async def test_each_end_of_a_job_is_a_typed_outcome(
    kind: str, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker([kind], app="queue_app")
    async with QueueClient(queue_settings) as client:
        answered = await ask(client, kind, Order(), seed=7)
        blamed = await ask(client, kind, Order(act="blame_model"))
        ours = await ask(client, kind, Order(act="blame_us"))
        bug = await ask(client, kind, Order(act="raise"))
    assert answered.ok
    assert answered.result.source["seed"] == 7
    causes = [(o.result.cause, o.result.fault) for o in (blamed, ours, bug) if isinstance(o.result, Failure)]
    assert causes == [
        (Cause.NO_HIT, Fault.MODEL),
        (Cause.QUOTA, Fault.INFRASTRUCTURE),
        (Cause.INTERNAL, Fault.INFRASTRUCTURE),
    ]


@pytest.mark.parametrize(("kind", "concurrency"), [("code", 2), ("search", 8)])
async def test_200_requests_at_once_each_get_their_own_outcome(
    kind: str, concurrency: int, worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker([kind], concurrency, app="queue_app")
    posted: list[str] = []
    ended: list[str] = []
    hooks = {
        "on_posted": lambda r: posted.append(r.request_id),
        "on_outcome": lambda o: ended.append(o.request_id),
    }
    async with QueueClient(queue_settings, **hooks) as client:
        started = time.monotonic()
        outcomes = await asyncio.gather(*(ask(client, kind, Order(), seed=n) for n in range(200)))
        print(f"200 of {kind}: {time.monotonic() - started:.2f} s")
        assert client.in_flight == 0
    assert [outcome.result.source["seed"] for outcome in outcomes if outcome.ok] == list(range(200))
    assert sorted(posted) == sorted(ended) == sorted({outcome.request_id for outcome in outcomes})
