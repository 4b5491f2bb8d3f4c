"""A running job survives the connection that delivered it: it runs once, keeps its slot and its time limit,
and its worker goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, alive, ask, cause_of, request_for
from raw_queue import queue_up
from waiting import until

from workers.broker.keys import held_key, outcome_key, queue_lists, worker_key
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.settings import QueueSettings

pytestmark = pytest.mark.long
KINDS = ("code", "search")  # processes, threads


async def disconnect(raw: redis.Redis) -> None:
    """Close every connection, also those of control channels. Returns when the worker has reconnected."""
    for kind in ("normal", "pubsub"):
        raw.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await until(lambda: any("P" in client["flags"] for client in raw.client_list()))  # subscribed again


async def refused(raw: redis.Redis, times: int = 3) -> None:
    """Wait until Redis has refused so many more commands for want of memory or replicas."""

    def count() -> int:
        errors = raw.info("errorstats")
        names = ("errorstat_OOM", "errorstat_NOREPLICAS")
        return sum(int(errors[name]["count"]) for name in names if name in errors)

    before = count()
    await until(lambda: count() >= before + times)


async def lease_renewed(raw: redis.Redis, kind: str) -> None:
    """Wait until the worker has renewed its lease."""
    before = raw.zrange(held_key(kind), 0, -1, withscores=True)
    await until(lambda: raw.zrange(held_key(kind), 0, -1, withscores=True) != before)


def waiting_in(raw: redis.Redis, kind: str) -> int:
    return sum(raw.llen(key) for key in queue_lists(kind))


@pytest.fixture
def hold(notes: Notes) -> Iterator[Path]:
    """A file that jobs ordered with `after` wait for."""
    path = notes.path.with_name("hold")
    yield path
    path.touch()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_runs_once_and_is_acknowledged_across_a_reconnection(
    kind: str, start_worker: StartWorker, client: QueueClient, notes: Notes, hold: Path, raw: redis.Redis
) -> None:
    worker = start_worker(kind, 2)
    posted = await client.post(request_for(notes.order(after=str(hold)), kind))
    await notes.started()
    await disconnect(raw)
    hold.touch()
    outcome = await posted.outcome()
    assert (outcome.ok, outcome.attempt, len(notes.starts)) == (True, 1, 1)
    assert raw.zcard(held_key(kind)) == 0
    assert (await ask(client, Order(), kind)).ok
    assert worker.alive


async def test_reconnections_are_not_attempts(
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    hold: Path,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    start_worker("code", 2)
    posted = await client.post(request_for(notes.order(after=str(hold))))
    await notes.started()
    for _ in range(queue_settings.max_attempts + 1):
        await disconnect(raw)
    hold.touch()
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_job_is_run_again_if_its_process_dies_after_a_reconnection(
    start_worker: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    start_worker()
    posted = await client.post(request_for(notes.order(act="hang_once")))
    job = await notes.started()
    await disconnect(raw)
    os.kill(job, signal.SIGKILL)
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 2


async def test_a_job_past_its_deadline_is_killed_after_a_reconnection(
    start_worker: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    """Regression: Celery dropped its time limit, and the worker was alive and did nothing."""
    start_worker()
    posted = await client.post(request_for(notes.order(seconds=60.0), timeout_s=3.0))
    job = await notes.started()
    await disconnect(raw)
    assert cause_of(await posted.outcome()) is Cause.TIMEOUT
    assert (await ask(client, Order(), timeout_s=20.0)).ok
    assert not alive(job)


async def test_a_job_can_be_cancelled_after_a_reconnection(
    start_worker: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    start_worker()
    posted = await client.post(request_for(notes.order(seconds=60.0)))
    job = await notes.started()
    await disconnect(raw)
    await client.cancel(posted.request.request_id)
    await until(lambda: not alive(job))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_worker_consumes_nothing_after_a_reconnection(
    kind: str, start_worker: StartWorker, client: QueueClient, notes: Notes, hold: Path, raw: redis.Redis
) -> None:
    """Regression: it consumed one more, which no other worker got until its lease expired."""
    start_worker(kind)
    running = await client.post(request_for(notes.order(after=str(hold)), kind))
    await notes.started()
    await disconnect(raw)
    waiting = await client.post(request_for(Order(), kind))
    await lease_renewed(raw, kind)
    assert (waiting_in(raw, kind), raw.zcard(held_key(kind))) == (1, 1)
    hold.touch()
    assert (await running.outcome()).ok
    assert (await waiting.outcome()).ok


async def test_a_full_worker_notices_at_once_that_its_control_channel_was_closed(
    start_worker: StartWorker, client: QueueClient, notes: Notes, hold: Path, raw: redis.Redis
) -> None:
    """Regression: it ignored the closed connection in a busy loop until a slot was free."""
    worker = start_worker()
    running = await client.post(request_for(notes.order(after=str(hold))))
    await notes.started()
    raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: "Connection to broker lost" in worker.log.read_text(), 10.0)
    assert running.outcome_now is None
    hold.touch()
    assert (await running.outcome()).ok


async def test_a_free_process_gets_the_next_job_after_a_reconnection(
    start_worker: StartWorker, client: QueueClient, notes: Notes, hold: Path, raw: redis.Redis
) -> None:
    """Regression: Celery forgot which process was busy, and sent the next job to it."""
    start_worker("code", 2)
    running = await client.post(request_for(notes.order(after=str(hold))))
    await notes.started()
    await disconnect(raw)
    for _ in range(4):
        assert (await ask(client, Order())).ok
    assert running.outcome_now is None


async def test_a_lost_heartbeat_key_is_written_again(start_worker: StartWorker, raw: redis.Redis) -> None:
    worker = start_worker("code")
    key = worker_key(f"{worker.name}@{worker.node}")
    before = raw.hgetall(key)
    raw.delete(key)
    await until(lambda: bool(raw.exists(key)))
    now = raw.hgetall(key)
    assert now.pop(b"clock_s")
    assert now == {name: before[name] for name in (b"queues", b"config", b"consuming")}
    assert 0 < raw.ttl(key) <= 4


REFUSALS = {  # a setting under which Redis refuses writes, and the one that undoes it
    "no memory": (("maxmemory", "1"), ("maxmemory", "0")),
    "no replica": (("min-replicas-to-write", "1"), ("min-replicas-to-write", "0")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_refused_writes_cost_no_outcome_and_no_slot(
    kind: str,
    refusal: str,
    start_worker: StartWorker,
    client: QueueClient,
    notes: Notes,
    hold: Path,
    raw: redis.Redis,
) -> None:
    refuses, serves = REFUSALS[refusal]
    worker = start_worker(kind)
    running = await client.post(request_for(notes.order(after=str(hold)), kind, timeout_s=60.0))
    await notes.started()
    waiting = asyncio.create_task(client.post(request_for(notes.order(), kind, timeout_s=60.0)))
    await until(lambda: waiting_in(raw, kind) == 1)
    raw.config_set(*refuses)
    try:
        hold.touch()
        await refused(raw)
        assert running.outcome_now is None
    finally:
        raw.config_set(*serves)
    assert (await running.outcome()).ok
    assert (await (await waiting).outcome()).ok
    assert len(notes.starts) == 2
    assert (await ask(client, Order(), kind)).ok
    assert worker.alive
    assert raw.zcard(held_key(kind)) == 0


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_no_request_is_lost_when_its_claim_is_refused(
    refusal: str, start_worker: StartWorker, raw: redis.Redis, notes: Notes
) -> None:
    """Regression: Redis had no memory to record the delivery. No client waits here that could repost it."""
    refuses, serves = REFUSALS[refusal]
    worker = start_worker()
    os.kill(worker.pid, signal.SIGSTOP)
    requests = [request_for(notes.order(), timeout_s=60.0, seed=seed) for seed in range(4)]
    queue_up(raw, *requests)
    raw.config_set(*refuses)
    try:
        os.kill(worker.pid, signal.SIGCONT)
        await refused(raw)
        assert waiting_in(raw, "code") + raw.zcard(held_key("code")) == len(requests)
    finally:
        raw.config_set(*serves)
    await until(lambda: all(raw.exists(outcome_key(request.request_id)) for request in requests))
    assert len(notes.starts) == len(requests)


@pytest.mark.parametrize("kind", KINDS)
async def test_all_slots_are_used_after_a_reconnection(
    kind: str, start_worker: StartWorker, client: QueueClient, notes: Notes, hold: Path, raw: redis.Redis
) -> None:
    start_worker(kind, 3)
    posted = [await client.post(request_for(notes.order(after=str(hold)), kind)) for _ in range(2)]
    await notes.started(2)
    for _ in range(2):
        await disconnect(raw)
    posted += [await client.post(request_for(notes.order(after=str(hold)), kind)) for _ in range(2)]
    await notes.started(3)
    await lease_renewed(raw, kind)
    assert (waiting_in(raw, kind), raw.zcard(held_key(kind))) == (1, 3)
    hold.touch()
    assert [(await one.outcome()).ok for one in posted] == [True] * 4
    assert len(notes.starts) == 4


async def test_a_worker_that_starts_while_redis_refuses_writes_becomes_ready(
    start_worker: StartWorker, client: QueueClient, raw: redis.Redis
) -> None:
    raw.config_set("min-replicas-to-write", "1")
    try:
        starting = asyncio.create_task(asyncio.to_thread(start_worker, "code", 2))
        await refused(raw)
        assert not starting.done()
    finally:
        raw.config_set("min-replicas-to-write", "0")
    await starting
    assert (await ask(client, Order())).ok
