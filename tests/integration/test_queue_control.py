"""Operating queues: cancel, drain, read depths, close; no process and no request is left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, alive, ask, cause_of, request_for
from raw_queue import queue_up
from waiting import until, wait_until

from workers.broker.claims import claim
from workers.broker.depths import read_depths
from workers.broker.keys import outcome_key
from workers.client.client import QueueClient
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.messages import LOW, Outcome
from workers.process.worker import WorkerProcess
from workers.settings import QueueSettings


async def test_cancelling_ends_running_and_queued_requests(
    tmp_path: Path, start_worker: StartWorker, client: QueueClient, notes: Notes, received: list[Outcome]
) -> None:
    start_worker()
    never = Notes(tmp_path / "never")
    running = await client.post(request_for(notes.order(seconds=60.0)))
    child = await notes.started()
    queued = await client.post(request_for(never.order()))
    await client.cancel(queued.request.request_id)
    assert cause_of(await queued.outcome()) is Cause.CANCELLED
    await client.cancel(running.request.request_id)
    assert cause_of(await running.outcome()) is Cause.CANCELLED
    assert (await ask(client, Order(), timeout_s=10.0)).ok, "the worker was not freed"
    assert not alive(child)
    assert never.starts == []
    assert len(received) == 3


async def test_cancelling_what_has_an_outcome_changes_nothing(
    start_worker: StartWorker, client: QueueClient
) -> None:
    start_worker()
    posted = await client.post(request_for(Order()))
    before = await posted.outcome()
    await client.cancel(posted.request.request_id)
    assert before.ok
    assert await posted.outcome() is before


async def test_a_cancelled_request_is_not_run_by_a_worker_that_starts_later(
    tmp_path: Path, start_worker: StartWorker, client: QueueClient
) -> None:
    never = Notes(tmp_path / "never")
    posted = await client.post(request_for(never.order()))
    await client.cancel(posted.request.request_id)
    start_worker()
    assert (await ask(client, Order())).ok  # posted later, so taken later
    assert never.starts == []
    assert cause_of(await posted.outcome()) is Cause.CANCELLED


async def test_closing_cancels_what_is_pending(
    queue_settings: QueueSettings, received: list[Outcome]
) -> None:
    async with QueueClient(queue_settings, on_outcome=received.append) as closing:
        posted = await closing.post(request_for(Order()))
    assert cause_of(await posted.outcome()) is Cause.CANCELLED
    assert received == [await posted.outcome()]
    with redis.Redis.from_url(queue_settings.url) as raw:
        assert raw.exists(outcome_key(posted.request.request_id))
        assert claim(raw, ["code"], 1, "w", 60.0) == [], "a worker would still start it"


async def test_closing_deletes_the_reply_stream(
    start_worker: StartWorker, queue_settings: QueueSettings, notes: Notes
) -> None:
    """Nor does the end of a job that a closed client had cancelled write it again."""
    start_worker()
    with redis.Redis.from_url(queue_settings.url) as raw:
        async with QueueClient(queue_settings) as closing:
            assert (await ask(closing, Order())).ok
            assert raw.exists(closing._stream)
            running = await closing.post(request_for(notes.order(seconds=60.0)))
            await notes.started()
        assert cause_of(await running.outcome()) is Cause.CANCELLED
        await until(lambda: read_depths(queue_settings.url)["code"].running == 0)
        assert raw.keys("llmi:replies:*") == []


async def test_draining_finishes_running_jobs_and_requeues_the_rest(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    process = start_worker()
    running = await client.post(request_for(notes.order(seconds=1.0)))
    await notes.started()
    waiting = [await client.post(request_for(notes.order())) for _ in range(3)]
    assert await asyncio.to_thread(process.drain, 20.0)
    assert not process.alive
    assert (await running.outcome()).ok
    assert len(notes.starts) == 1
    assert read_depths(queue_settings.url)["code"].waiting == 3
    start_worker()
    assert all([(await posted.outcome()).ok for posted in waiting])


async def test_draining_ends_with_a_kill(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    process = start_worker()
    await client.post(request_for(notes.order(seconds=60.0)))
    child = await notes.started()
    assert not await asyncio.to_thread(process.drain, 0.5)
    assert not process.alive
    assert not alive(child)


async def test_depths_count_waiting_running_and_age(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    start_worker()
    await client.post(request_for(notes.order(seconds=60.0)))
    await notes.started()
    await client.post(request_for(Order()))
    with redis.Redis.from_url(queue_settings.url) as raw:  # another level
        queue_up(raw, request_for(Order()).model_copy(update={"priority": LOW}))
    await asyncio.sleep(0.2)
    depths = read_depths(queue_settings.url)
    assert (depths["code"].waiting, depths["code"].running) == (2, 1)
    assert depths["code"].by_level == (0, 1, 1)
    assert 0.2 <= depths["code"].oldest_s < 10.0
    assert (depths["search"].waiting, depths["search"].running, depths["search"].oldest_s) == (0, 0, 0.0)


def test_a_worker_dies_with_its_owner(tmp_path: Path, config_file: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from workers.process.worker import WorkerProcess\n"
        "w = WorkerProcess(['code'], Path(sys.argv[1]), 1, Path(sys.argv[2]), 'orphan')\n"
        "w.start(); print(w.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(config_file), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(pid), 5.0)


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, config_file: Path) -> None:
    process = WorkerProcess(["code"], config_file, 1, tmp_path / "log", "broken", app="no_such_app")
    process.start()
    with pytest.raises(InfrastructureFault, match="no_such_app"):
        process.wait_ready(30.0)


def test_queues_of_one_worker_share_a_pool(tmp_path: Path, config_file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot share one process"):
        WorkerProcess(["code", "search"], config_file, 1, tmp_path / "log", "mixed")


def test_the_client_is_cheap_to_import() -> None:
    code = (
        "import sys, workers.client.client; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
