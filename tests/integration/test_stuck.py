"""A request that is slow and one that is stuck look different, with real workers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, request_for
from waiting import until

from coordinator.watch.status import read_status as status_of
from policy.document import Task
from policy.ledger.writer import LedgerWriter
from workers.broker.request_status import RequestStatus, find_request
from workers.client.client import QueueClient
from workers.messages import Request
from workers.settings import QueueSettings


async def test_a_slow_request_runs_and_the_next_waits_for_its_slot(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    start_worker("code")
    slow = request_for(notes.order(seconds=60.0))
    behind = [request_for(Order(), seed=number) for number in range(2)]
    await client.post(slow)
    await notes.started()
    for request in behind:
        await client.post(request)

    def look() -> RequestStatus:
        return find_request(queue_settings.url, queue_settings, slow.request_id, "code")

    seen: list[RequestStatus] = []

    def runs_on() -> bool:
        seen[:] = [look()]
        return seen[0].state == "running" and seen[0].for_s > queue_settings.lease_s

    await until(runs_on)  # its lease was renewed
    assert (seen[0].workers, seen[0].attempts, seen[0].stuck) == (1, 1, False)
    waits = [
        find_request(queue_settings.url, queue_settings, request.request_id, "code") for request in behind
    ]
    assert [(one.state, one.before, one.stuck) for one in waits] == [
        ("waiting", 0, False),
        ("waiting", 1, False),
    ]


async def test_a_request_of_a_frozen_worker_is_stuck_until_another_has_it(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    frozen = start_worker("code")
    request = request_for(notes.order(act="hang_once"))
    posted = await client.post(request)
    child = await notes.started()

    def place() -> str:
        return find_request(queue_settings.url, queue_settings, request.request_id, "code").state

    assert place() == "running"
    for process in (frozen.pid, child):
        os.kill(process, signal.SIGSTOP)
    await until(lambda: place() == "silent")
    assert find_request(queue_settings.url, queue_settings, request.request_id, "code").stuck
    start_worker("code")
    assert (await posted.outcome()).ok
    assert find_request(queue_settings.url, queue_settings, request.request_id, "code").state == "done"
    assert psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED


async def test_a_queue_without_workers_is_reported(
    start_worker: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    start_worker("code")
    request = request_for(Order(), kind="search")
    await client.post(request)
    seen = find_request(queue_settings.url, queue_settings, request.request_id, "search")
    assert (seen.state, seen.workers, seen.stuck) == ("unserved", 0, True)
    assert find_request(queue_settings.url, queue_settings, "never-posted", "search").state == "unknown"


@pytest.fixture
async def producing(queue_settings: QueueSettings, config_file: Path) -> AsyncIterator[QueueClient]:
    """A client that writes the ledger of a run in the folder of `config_file`, for the rollout g_0."""
    run = config_file.parent
    (run / "endpoints.json").write_text(json.dumps({"redis": queue_settings.redis_url}))
    ledger = LedgerWriter(run, "rollout")
    ledger.started("g_0", Task(question="Write about cats."))
    async with QueueClient(
        queue_settings, on_posted=ledger.posted, on_outcome=ledger.request_ended
    ) as running:
        yield running
    ledger.close()


def of_rollout(order: Order, kind: str = "code") -> Request:
    return request_for(order, kind).model_copy(update={"owner": "g_0"})


async def test_the_status_of_a_run_tells_slow_from_stuck(
    start_worker: StartWorker, producing: QueueClient, notes: Notes, config_file: Path
) -> None:
    run = config_file.parent
    worker = start_worker("code")
    for number in range(3):  # for the median of the kind
        await (await producing.post(of_rollout(Order(seconds=0.1 + number / 100)))).outcome()
    slow = of_rollout(notes.order(seconds=60.0))
    await producing.post(slow)
    child = await notes.started()

    def state() -> str:
        one = status_of(run).longest_pending
        if one is None or one.request_id != slow.request_id:  # the last moment's lines are not read yet
            return ""
        assert (one.tool, one.rollout, one.prompt) == ("code", "g_0", "Write about cats.")
        return one.state

    await until(lambda: re.search(r"\(slow: the median of its kind is \d\.\d s\)", state()))
    assert state().startswith("running for ")
    assert status_of(run).queues["code"] == {"waiting": 0, "running": 1}
    for process in (worker.pid, child):
        os.kill(process, signal.SIGSTOP)
    await until(lambda: state().startswith("stuck: lease not renewed for "))
    assert status_of(run).longest_pending.stuck


async def test_the_status_of_a_run_names_a_queue_without_a_worker(
    producing: QueueClient, config_file: Path
) -> None:
    await producing.post(of_rollout(Order(), kind="search"))

    def one() -> bool:
        seen = status_of(config_file.parent).longest_pending
        return seen is not None and seen.state == "stuck: no worker serves this queue"

    await until(one)
