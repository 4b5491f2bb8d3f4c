"""A client reattaches to requests of one that died, wherever they are: with real Redis and workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import redis
from conftest import StartWorker
from queue_requests import WAIT_S, Notes, alive, cause_of, request_for
from waiting import until

from workers.broker.keys import replies_key
from workers.broker.outcomes import commit
from workers.client import blocking as submit
from workers.client.client import QueueClient
from workers.client.publisher import encode
from workers.errors import Cause
from workers.messages import Outcome, Request
from workers.redis_client import connect_redis
from workers.settings import QueueSettings


@pytest.fixture
def server(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with connect_redis(queue_settings.url) as client:
        yield client


def again(request: Request) -> Request:
    """The request as a resumed rollout posts it: the same, with a new deadline."""
    return request.model_copy(update={"deadline": request.deadline + 1000})


def left(server: redis.Redis, request: Request) -> None:
    """Queue it as a client that died did."""
    server.lpush(request.kind, encode(request, tag=f"old-{request.request_id}", reply_to=replies_key("dead")))


def held(server: redis.Redis, request: Request) -> str:
    """Mark it as held by a worker that died; returns the delivery tag."""
    tag = f"old-{request.request_id}"
    message = json.loads(encode(request, tag=tag, reply_to=replies_key("dead")))
    server.hset("unacked", tag, json.dumps([message, "", request.kind]))
    server.zadd("unacked_index", {tag: time.time()})
    return tag


def messages(server: redis.Redis) -> int:
    return server.llen("code") + server.hlen("unacked")


async def test_a_request_that_never_reached_redis_is_posted(
    client: QueueClient, start_worker: StartWorker, notes: Notes
) -> None:
    start_worker()
    posted = await client.reattach(request_for(notes.order()))
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_queued_request_keeps_its_place_and_gets_the_new_deadline(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes, received: list[Outcome]
) -> None:
    expired = request_for(notes.order(), timeout_s=-5.0)
    before, after = request_for(notes.order()), request_for(notes.order())
    for request in (before, expired, after):
        left(server, request)
    posted = await client.reattach(again(expired))
    waiting = [json.loads(entry)["properties"] for entry in server.lrange("code", 0, -1)]
    assert [entry["correlation_id"] for entry in waiting] == [
        request.request_id for request in (after, expired, before)
    ]
    assert [entry["reply_to"] == replies_key("dead") for entry in waiting] == [True, False, True]
    start_worker()
    assert (await posted.outcome()).ok
    assert received == [posted.outcome_now]


async def test_a_running_request_is_joined(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(seconds=1.5))
    left(server, request)
    start_worker(concurrency=2)
    await notes.started()
    posted = await client.reattach(again(request))
    assert posted.tags[-1] == f"old-{request.request_id}"
    assert server.llen("code") == 0
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_request_of_a_worker_that_died_too_runs_again_once(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(act="hang_once"), timeout_s=4 * WAIT_S)
    left(server, request)
    worker = start_worker()
    await notes.started()
    worker.kill()
    posted = await client.reattach(again(request))
    start_worker()
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 2


@pytest.mark.parametrize(("act", "cause"), [("answer", None), ("fail_model", Cause.NO_HIT)])
async def test_a_stored_outcome_is_returned_at_once(
    act: str,
    cause: Cause | None,
    client: QueueClient,
    server: redis.Redis,
    start_worker: StartWorker,
    notes: Notes,
) -> None:
    request = request_for(notes.order(act=act))
    left(server, request)
    start_worker()
    await until(lambda: submit.states(server, "code", [request.request_id])[request.request_id] == "done")
    posted = await client.reattach(again(request))
    assert posted.outcome_now is not None
    assert cause_of(posted.outcome_now) is cause
    assert len(notes.starts) == 1


@pytest.mark.parametrize("cause", [Cause.TIMEOUT, Cause.CANCELLED, Cause.WORKER_LOST])
async def test_a_stored_infrastructure_failure_is_posted_again(
    cause: Cause, client: QueueClient, server: redis.Redis, notes: Notes
) -> None:
    request = request_for(notes.order())
    commit(server, Outcome.failed(request, cause), "", 60)
    posted = await client.reattach(again(request))
    assert posted.outcome_now is None
    assert submit.states(server, "code", [request.request_id]) == {request.request_id: "queued"}


async def test_a_cancelled_message_that_is_still_queued_runs_once(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order())
    left(server, request)
    commit(server, Outcome.failed(request, Cause.CANCELLED), "", 60)
    posted = await client.reattach(again(request))
    assert server.llen("code") == 1
    start_worker()
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_failed_request_whose_worker_died_unacknowledged_is_queued_once(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order())
    held(server, request)
    commit(server, Outcome.failed(request, Cause.TIMEOUT), "", 60)
    posted = await client.reattach(again(request))
    assert messages(server) == 1
    start_worker()
    assert (await posted.outcome()).ok
    await until(lambda: server.zcard("unacked_index") == 0)  # the lease of the dead worker expired
    assert messages(server) == 0
    assert len(notes.starts) == 1


async def test_a_cancelled_request_that_may_still_run_is_joined(
    client: QueueClient, server: redis.Redis, notes: Notes
) -> None:
    request = request_for(notes.order())
    tag = held(server, request)
    commit(server, Outcome.failed(request, Cause.CANCELLED), "", 60)
    posted = await client.reattach(again(request))
    assert posted.tags[-1] == tag
    assert messages(server) == 1


async def test_a_worker_runs_a_request_that_was_cancelled_and_reattached(
    client: QueueClient, start_worker: StartWorker, notes: Notes
) -> None:
    start_worker()
    request = request_for(notes.order(act="hang_once"), timeout_s=4 * WAIT_S)
    posted = await client.post(request)
    job = await notes.started()
    await client.cancel(request.request_id)
    assert cause_of(await posted.outcome()) is Cause.CANCELLED
    await until(lambda: not alive(job))
    assert (await (await client.reattach(again(request))).outcome()).ok
    assert len(notes.starts) == 2
