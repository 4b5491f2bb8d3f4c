"""A request ends in exactly one visible outcome when workers, pool processes or Redis are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, alive, ask, cause_of, request_for
from waiting import until

from coordinator.host.redis_server import EmbeddedRedis
from workers.broker.claims import Attempt, claim
from workers.broker.dead_letters import MAX_ENTRIES, dead_letter_poison, dead_letters_key, read_dead_letters
from workers.broker.keys import held_key, queue_lists
from workers.broker.leases import granted_s
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Outcome
from workers.settings import REDIS_ENV, QueueSettings

pytestmark = pytest.mark.long

REDELIVERY_S = 15.0
GROUPS = Path("/sys/fs/cgroup")


async def test_a_killed_child_costs_one_attempt_and_no_outcome(
    start_worker: StartWorker, client: QueueClient, notes: Notes, received: list[Outcome]
) -> None:
    start_worker()
    outcome = await ask(client, notes.order(act="die_once"))
    assert outcome.ok
    assert received == [outcome]
    assert len(notes.starts) == 2


@pytest.fixture
def confined() -> Iterator[Callable[[int], None]]:
    """`confined(pid)` leaves a process an eighth of a GiB; the kernel kills it when it takes more."""
    where = next((path for path in (GROUPS / "memory", GROUPS) if os.access(path, os.W_OK)), None)
    first = where is not None and (where / "memory.limit_in_bytes").exists()
    if where is None or not (first or "memory" in (where / "cgroup.subtree_control").read_text()):
        pytest.skip("no group of processes whose memory could be limited")
    group = where / f"llmi-{uuid.uuid4().hex}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(128 << 20))

    def confine(pid: int) -> None:
        (group / "cgroup.procs").write_text(f"{pid}\n")

    yield confine
    for pid in (group / "cgroup.procs").read_text().split():
        (where / "cgroup.procs").write_text(f"{pid}\n")
    group.rmdir()


async def test_a_job_killed_for_its_memory_is_run_again(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    tmp_path: Path,
    confined: Callable[[int], None],
) -> None:
    start_worker()
    gate = tmp_path / "gate"
    posted = await client.post(request_for(notes.order(act="eat_once", after=str(gate))))
    eater = await notes.started()
    confined(eater)
    gate.touch()
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 2
    assert not alive(eater)


async def test_a_job_that_ends_every_worker_fails_as_worker_lost(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    start_worker()
    assert cause_of(await ask(client, notes.order(act="die"))) is Cause.WORKER_LOST
    assert len(notes.starts) == queue_settings.max_attempts
    assert (await ask(client, Order())).ok, "the worker no longer works"


async def test_a_poison_message_is_dead_lettered_with_its_attempts(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    worker = start_worker()
    began = time.time()
    deadly = request_for(notes.order(act="die")).model_copy(update={"owner": "g_0"})
    await (await client.post(deadly)).outcome()
    [one] = read_dead_letters(queue_settings.url)
    assert (one.request_id, one.queue, one.owner) == (deadly.request_id, "code", "g_0")
    assert (one.reason, one.detail) == ("poison", f"ended its worker {len(notes.starts)} times")
    assert "act='die'" in one.payload
    name = f"{worker.name}@{worker.node}"
    assert [attempt.worker for attempt in one.attempts] == [name] * len(notes.starts)
    times = [began, *(attempt.started for attempt in one.attempts), one.since]
    assert times == sorted(times)
    command = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
    command += ["workers", "status", "--redis", queue_settings.url]
    shown = await asyncio.to_thread(subprocess.run, [*command, "--json"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["dead_letters"] == [one.model_dump(mode="json")]
    read = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert "dead letter (poison) in code" in read.stdout
    assert name in read.stdout


def test_only_the_newest_poison_messages_are_kept_each_once(queue_settings: QueueSettings) -> None:
    requests = [request_for(Order(), seed=number) for number in range(MAX_ENTRIES + 1)]
    with redis.Redis.from_url(queue_settings.url) as raw:
        for request in [*requests, requests[-1]]:
            dead_letter_poison(raw, request, (Attempt(worker="w", started=1.0),), 60)
        assert 0 < raw.ttl(dead_letters_key("poison")) <= 60
    kept = [one.request_id for one in read_dead_letters(queue_settings.url)]
    assert kept == [request.request_id for request in reversed(requests[2:])]


async def test_the_job_of_a_killed_worker_is_requeued(
    start_worker: StartWorker, client: QueueClient, notes: Notes, received: list[Outcome]
) -> None:
    workers = [start_worker() for _ in range(2)]
    posted = await client.post(request_for(notes.order(act="hang_once")))
    parent = psutil.Process(await notes.started()).ppid()
    next(process for process in workers if process.pid == parent).kill()
    await notes.started(2, REDELIVERY_S)
    assert (await posted.outcome()).ok
    assert len(received) == 1


async def test_children_die_with_a_killed_parent(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    process = start_worker()
    await client.post(request_for(notes.order(seconds=60.0)))
    child = await notes.started()
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: not alive(child), 5.0)


async def test_a_job_longer_than_the_lease_runs_once(
    start_worker: StartWorker, client: QueueClient, notes: Notes, queue_settings: QueueSettings
) -> None:
    start_worker()
    start_worker()
    assert (await ask(client, notes.order(seconds=queue_settings.lease_s * 1.5))).ok
    assert len(notes.starts) == 1


async def test_a_job_past_its_deadline_is_killed_and_frees_its_worker(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    start_worker()
    assert cause_of(await ask(client, notes.order(seconds=60.0), timeout_s=1.0)) is Cause.TIMEOUT
    assert (await ask(client, Order(), timeout_s=10.0)).ok
    assert not alive(notes.starts[0])


async def test_a_request_past_its_start_deadline_is_not_started(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    start_worker()
    assert cause_of(await ask(client, notes.order(), timeout_s=-1.0)) is Cause.TIMEOUT
    assert (await ask(client, Order())).ok, "it would have been started by now"
    assert notes.starts == []


async def test_without_a_worker_a_request_ends_at_its_deadline(client: QueueClient) -> None:
    assert cause_of(await ask(client, Order(), timeout_s=0.2)) is Cause.TIMEOUT


async def test_a_frozen_worker_takes_nothing_with_it(
    start_worker: StartWorker, client: QueueClient, queue_settings: QueueSettings
) -> None:
    """Regression: Redis gave the message to a connection of the frozen worker, where nobody could see it."""
    frozen = start_worker()
    os.kill(frozen.pid, signal.SIGSTOP)
    posted = await client.post(request_for(Order()))
    with redis.Redis.from_url(queue_settings.url) as raw:
        frozen.kill()
        assert raw.llen(queue_lists("code")[1]) == 1
    start_worker()
    outcome = await posted.outcome()
    assert (outcome.ok, outcome.attempt) == (True, 1)


async def test_a_claim_that_never_reached_its_worker_is_requeued(
    start_worker: StartWorker, client: QueueClient, queue_settings: QueueSettings, notes: Notes
) -> None:
    posted = await client.post(request_for(notes.order()))
    with redis.Redis.from_url(queue_settings.url) as raw:
        [lost] = claim(raw, ["code"], 1, "gone@node", granted_s(queue_settings.lease_s))
        start_worker()
        outcome = await posted.outcome()
        assert raw.zcard(held_key("code")) == 0
    assert (outcome.ok, outcome.attempt) == (True, lost.attempt + 1)
    assert len(notes.starts) == 1


async def test_waiting_and_running_requests_survive_two_restarts_of_redis_and_a_killed_process(
    tmp_path: Path,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    monkeypatch: pytest.MonkeyPatch,
    notes: Notes,
) -> None:
    """Regression: a worker whose line broke once forgot that its process was busy, sent it one more, and
    dropped that one when its line broke again.
    """
    with EmbeddedRedis(tmp_path / "own") as server:
        monkeypatch.setenv(REDIS_ENV, server.url)
        start_worker()

        def subscribed() -> bool:
            """Whether the worker has joined: the last step is its subscription to control messages."""
            with redis.Redis.from_url(server.url) as raw:
                return any(int(one["sub"]) + int(one["psub"]) for one in raw.client_list())

        async def restart() -> None:
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.start)
            await until(subscribed)

        async with QueueClient(queue_settings) as client:
            running = await client.post(request_for(notes.order(seconds=8.0)))
            job = await notes.started()
            await restart()
            waiting = await client.post(request_for(notes.order()))
            await restart()
            os.kill(job, signal.SIGKILL)
            outcomes = await asyncio.gather(running.outcome(), waiting.outcome())
    assert [outcome.result for outcome in outcomes if not outcome.ok] == []


@pytest.mark.parametrize("kind", ["code", "search"])
async def test_a_killed_redis_loses_no_accepted_request(
    kind: str,
    tmp_path: Path,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    received: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        monkeypatch.setenv(REDIS_ENV, server.url)
        start_worker(kind, 2)
        async with QueueClient(queue_settings, on_outcome=received.append) as client:
            work = [await client.post(request_for(Order(seconds=0.05), kind)) for _ in range(60)]
            await until(lambda: len(received) >= 5)
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.start)
            outcomes = await asyncio.gather(*(posted.outcome() for posted in work))
    assert [outcome.result for outcome in outcomes if not outcome.ok] == []
    assert len(received) == 60
