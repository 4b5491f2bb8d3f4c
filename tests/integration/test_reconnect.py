"""What a worker runs outlives the line over which it came: it is not run twice, keeps its slot and its time
limit, and its worker goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator

import pytest
import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, alive, ask, cause_of, request_for
from waiting import until

from workers.broker.keys import attempts_key, outcome_key, worker_key
from workers.client.client import QueueClient
from workers.client.publisher import encode
from workers.errors import Cause
from workers.settings import QueueSettings

pytestmark = pytest.mark.long
KINDS = ("code", "search")  # processes, threads


@pytest.fixture
def raw(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


async def cut(raw: redis.Redis) -> None:
    """Drop every connection, that of orders too, until the one worker has connected anew."""
    for kind in ("normal", "pubsub"):
        raw.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await until(lambda: any("P" in client["flags"] for client in raw.client_list()))  # it hears orders


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_whose_line_was_cut_runs_once_and_is_acknowledged(
    kind: str, obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    worker = obedient(kind, 2)
    posted = await client.post(request_for(notes.order(seconds=4.0), kind))
    await notes.started()
    await cut(raw)
    assert (await posted.outcome()).ok
    assert len(notes.starts) == raw.llen(attempts_key(posted.request.request_id)) == 1
    await until(lambda: raw.hlen("unacked") == raw.zcard("unacked_index") == 0)
    assert (await ask(client, Order(), kind)).ok
    assert worker.alive


async def test_as_many_cuts_as_attempts_do_not_set_a_job_aside(
    obedient: StartWorker,
    client: QueueClient,
    notes: Notes,
    raw: redis.Redis,
    queue_settings: QueueSettings,
) -> None:
    obedient("code", 2)
    posted = await client.post(request_for(notes.order(seconds=6.0)))
    await notes.started()
    for _ in range(queue_settings.max_attempts + 1):
        await cut(raw)
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_job_whose_process_dies_after_a_cut_is_tried_again(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    obedient()
    posted = await client.post(request_for(notes.order(act="hang_once")))
    job = await notes.started()
    await cut(raw)
    os.kill(job, signal.SIGKILL)
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 2


async def test_a_job_past_its_deadline_is_killed_after_a_cut(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    """Regression: Celery forgot its time limit, and the worker lived and did nothing."""
    obedient()
    posted = await client.post(request_for(notes.order(seconds=60.0), timeout_s=3.0))
    job = await notes.started()
    await cut(raw)
    assert cause_of(await posted.outcome()) is Cause.TIMEOUT
    assert (await ask(client, Order(), timeout_s=20.0)).ok
    assert not alive(job)


async def test_a_job_that_is_cancelled_after_a_cut_is_ended(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    obedient()
    posted = await client.post(request_for(notes.order(seconds=60.0)))
    job = await notes.started()
    await cut(raw)
    await client.cancel(posted.request.request_id)
    await until(lambda: not alive(job))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_worker_takes_nothing_more_after_a_cut(
    kind: str, obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    """Regression: it took one more and kept it from other workers until its lease ran out."""
    obedient(kind)
    running = await client.post(request_for(notes.order(seconds=4.0), kind))
    await notes.started()
    await cut(raw)
    waiting = await client.post(request_for(Order(), kind))
    await until(lambda: raw.llen(kind) == 0)
    await until(lambda: running.outcome_now is not None, 1.0)  # its end made room
    assert (await waiting.outcome()).ok


async def test_a_full_worker_notices_at_once_that_its_line_of_work_was_cut(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    """Regression: it looked away until a slot was free, as fast as it could."""
    worker = obedient()
    gate = notes.path.with_name("gate")
    running = await client.post(request_for(notes.order(after=str(gate))))
    await notes.started()
    await until(lambda: all(one["cmd"] != "brpop" or "b" not in one["flags"] for one in raw.client_list()))
    raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # that of orders goes on
    await until(lambda: "Connection to broker lost" in worker.log.read_text(), 10.0)
    assert running.outcome_now is None
    gate.touch()
    assert (await running.outcome()).ok


async def test_a_free_process_gets_the_next_job_after_a_cut(
    obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    """Regression: Celery forgot who was busy, and gave it to the one that was."""
    obedient("code", 2)
    running = await client.post(request_for(notes.order(seconds=8.0)))
    await notes.started()
    await cut(raw)
    for _ in range(4):
        assert (await ask(client, Order())).ok
    assert running.outcome_now is None


async def test_a_presence_that_redis_forgot_is_told_again(obedient: StartWorker, raw: redis.Redis) -> None:
    worker = obedient("code")
    key = worker_key(f"{worker.name}@{worker.node}")
    said = raw.hgetall(key)
    raw.delete(key)
    await until(lambda: bool(raw.exists(key)))
    now = raw.hgetall(key)
    assert now == {name: said[name] for name in (b"queues", b"config", b"consuming")}
    assert 0 < raw.ttl(key) <= 4


REFUSALS = {  # a setting under which Redis answers writes with an error, and the one that undoes it
    "no memory": (("maxmemory", "1"), ("maxmemory", "0")),
    "no replica": (("min-replicas-to-write", "1"), ("min-replicas-to-write", "0")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_redis_that_refuses_writes_costs_no_outcome_and_no_slot(
    kind: str, refusal: str, obedient: StartWorker, client: QueueClient, notes: Notes, raw: redis.Redis
) -> None:
    refuses, serves = REFUSALS[refusal]
    worker = obedient(kind)
    gate = notes.path.with_name("gate")
    running = await client.post(request_for(notes.order(after=str(gate)), kind, timeout_s=60.0))
    await notes.started()
    waiting = asyncio.create_task(client.post(request_for(notes.order(), kind, timeout_s=60.0)))
    await until(lambda: raw.llen(kind) == 1)
    raw.config_set(*refuses)
    try:
        gate.touch()
        await asyncio.sleep(3.0)  # for so long Redis refuses: not what the test waits for
        assert running.outcome_now is None
    finally:
        raw.config_set(*serves)
    assert (await running.outcome()).ok
    assert (await (await waiting).outcome()).ok
    assert len(notes.starts) == 2
    assert (await ask(client, Order(), kind)).ok
    assert worker.alive
    await until(lambda: raw.hlen("unacked") == 0)


async def test_a_free_worker_loses_nothing_to_a_redis_without_memory(
    obedient: StartWorker, raw: redis.Redis
) -> None:
    """Regression: it took a message and could not write down that it held it. Nobody waits here who could
    post it again.
    """
    worker = obedient()
    os.kill(worker.pid, signal.SIGSTOP)
    requests = [request_for(Order(), timeout_s=60.0, seed=seed) for seed in range(4)]
    for request in requests:
        raw.lpush("code", encode(request, tag=uuid.uuid4().hex, reply_to=""))
    raw.config_set("maxmemory", "1")
    try:
        os.kill(worker.pid, signal.SIGCONT)
        await until(lambda: raw.llen("code") == len(requests) - 1)  # it has taken one
        await asyncio.sleep(1.0)  # for so long Redis refuses
        assert raw.llen("code") == len(requests) - 1
    finally:
        raw.config_set("maxmemory", "0")
    await until(lambda: all(raw.exists(outcome_key(request.request_id)) for request in requests))


async def test_a_worker_that_starts_while_redis_refuses_writes_is_ready_when_it_serves(
    obedient: StartWorker, client: QueueClient, raw: redis.Redis
) -> None:
    raw.config_set("min-replicas-to-write", "1")
    try:
        starting = asyncio.create_task(asyncio.to_thread(obedient, "code", 2))
        await asyncio.sleep(6.0)  # for so long Redis refuses
        assert not starting.done()
    finally:
        raw.config_set("min-replicas-to-write", "0")
    await starting
    assert (await ask(client, Order())).ok
