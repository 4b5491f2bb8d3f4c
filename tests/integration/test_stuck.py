"""A request that is slow and one that is stuck look different, with real workers."""

from __future__ import annotations

import os
import signal

import psutil
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, request_for, until

from workers.client import QueueClient
from workers.settings import QueueSettings
from workers.whereabouts import Whereabouts, find


async def test_a_slow_request_runs_and_the_next_waits_for_its_slot(
    obedient: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    obedient("code")
    slow = request_for(notes.order(seconds=60.0))
    behind = [request_for(Order(), seed=number) for number in range(2)]
    await client.post(slow)
    await notes.started()
    for request in behind:
        await client.post(request)

    def look() -> Whereabouts:
        return find(queue_settings.url, queue_settings, slow.request_id, "code")

    await until(lambda: look().for_s > queue_settings.lease_s)  # its lease was renewed: it still runs
    seen = look()
    assert (seen.place, seen.workers, seen.attempts, seen.stuck) == ("running", 1, 1, False)
    waits = [find(queue_settings.url, queue_settings, request.request_id, "code") for request in behind]
    assert [(one.place, one.before, one.stuck) for one in waits] == [
        ("waiting", 0, False),
        ("waiting", 1, False),
    ]


async def test_a_request_of_a_frozen_worker_is_stuck_until_another_has_it(
    obedient: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    frozen = obedient("code")
    request = request_for(notes.order(act="hang_once"))
    posted = await client.post(request)
    child = await notes.started()

    def place() -> str:
        return find(queue_settings.url, queue_settings, request.request_id, "code").place

    assert place() == "running"
    for process in (frozen.pid, child):
        os.kill(process, signal.SIGSTOP)
    await until(lambda: place() == "silent")
    assert find(queue_settings.url, queue_settings, request.request_id, "code").stuck
    obedient("code")
    assert (await posted.outcome()).ok
    assert find(queue_settings.url, queue_settings, request.request_id, "code").place == "ended"
    assert psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED


async def test_a_queue_that_nobody_serves_is_told(
    obedient: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    obedient("code")
    request = request_for(Order(), kind="search")
    await client.post(request)
    seen = find(queue_settings.url, queue_settings, request.request_id, "search")
    assert (seen.place, seen.workers, seen.stuck) == ("unserved", 0, True)
    assert find(queue_settings.url, queue_settings, "never-posted", "search").place == "missing"
