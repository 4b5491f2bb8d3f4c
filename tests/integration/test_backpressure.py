"""A full queue makes only its own producers wait."""

from __future__ import annotations

import asyncio

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, request_for
from waiting import until

from workers.broker.claims import claim
from workers.broker.keys import queue_lists
from workers.client.client import QueueClient
from workers.errors import Cause, InfrastructureFault
from workers.settings import QueueSettings

MAY_WAIT = 3
CODE = queue_lists("code")[1]


@pytest.fixture
def narrow(queue_settings: QueueSettings) -> QueueSettings:
    return queue_settings.model_copy(update={"max_waiting": MAY_WAIT})


async def post_all(client: QueueClient, number: int, timeout_s: float = 60.0) -> list[asyncio.Task]:
    work = [client.post(request_for(Order(), timeout_s=timeout_s, seed=n)) for n in range(number)]
    tasks = [asyncio.create_task(one) for one in work]
    await until(lambda: sum(task.done() for task in tasks) >= MAY_WAIT)
    return tasks


async def test_a_full_queue_holds_its_posters_back_and_lets_others_pass(
    narrow: QueueSettings, raw: redis.Redis
) -> None:
    async with QueueClient(narrow) as client:
        tasks = await post_all(client, MAY_WAIT + 5)
        await client.post(request_for(Order(), "search"))
        assert [task.done() for task in tasks] == [True] * MAY_WAIT + [False] * 5, "oldest first"
        assert (raw.llen(CODE), raw.llen(queue_lists("search")[1])) == (MAY_WAIT, 1)
        assert len(claim(raw, ["code"], 2, "w", 60.0)) == 2
        await until(lambda: sum(task.done() for task in tasks) == MAY_WAIT + 2)
        assert raw.llen(CODE) == MAY_WAIT
        for task in tasks:
            task.cancel()


async def test_a_request_without_room_before_its_deadline_fails(narrow: QueueSettings) -> None:
    async with QueueClient(narrow) as client:
        *_, last = await post_all(client, MAY_WAIT + 1, timeout_s=1.0)
        with pytest.raises(InfrastructureFault, match="queue code holds 3 requests") as received:
            await last
    assert received.value.cause is Cause.PROVIDER_DOWN


async def test_all_that_waited_for_room_is_done_in_the_end(
    narrow: QueueSettings, raw: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    clients = [QueueClient(narrow) for _ in range(2)]
    for client in clients:
        await client.start()
    lengths: list[int] = []

    async def run(client: QueueClient, seed: int) -> bool:
        posted = await client.post(request_for(Order(), seed=seed))
        lengths.append(raw.llen(CODE))
        return (await posted.outcome()).ok

    work = [asyncio.create_task(run(client, n)) for client in clients for n in range(4 * MAY_WAIT)]
    start_worker()
    assert all(await asyncio.gather(*work))
    assert max(lengths) <= MAY_WAIT
    for client in clients:
        await client.close()
