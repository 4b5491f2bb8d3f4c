"""A client reattaches to requests of one that died, wherever they are: with real Redis and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from conftest import StartWorker
from queue_requests import WAIT_S, Notes, alive, cause_of, request_for
from raw_queue import queue_up
from waiting import until

from workers.broker.claims import Claim, claim
from workers.broker.keys import held_key, queue_lists, record_key, replies_key
from workers.broker.outcomes import commit, commit_cancelled
from workers.client import blocking as submit
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Outcome, Request, Success
from workers.redis_client import connect_redis, connect_redis_async
from workers.settings import QueueSettings

DEAD = replies_key("dead")


@pytest.fixture
def server(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with connect_redis(queue_settings.url) as client:
        yield client


def again(request: Request) -> Request:
    """The request as a resumed rollout posts it: the same, with a new deadline."""
    return request.model_copy(update={"deadline": request.deadline + 1000})


def left(server: redis.Redis, request: Request) -> None:
    """Queue it as a client that died did."""
    queue_up(server, request, reply_to=DEAD)


def held(server: redis.Redis, request: Request, lease_s: float = 600.0) -> Claim:
    """Queue it, and claim it for a worker that died."""
    left(server, request)
    [claimed] = claim(server, ["code"], 1, "dead@node", lease_s)
    return claimed


async def cancel(server: redis.Redis, request: Request) -> None:
    """Cancel it as its client did before it died."""
    url = f"redis://127.0.0.1:{server.connection_pool.connection_kwargs['port']}/0"
    async with connect_redis_async(url) as other:
        await commit_cancelled(other, Outcome.failed(request, Cause.CANCELLED), 60)


def messages(server: redis.Redis) -> int:
    return sum(server.llen(key) for key in queue_lists("code")) + server.zcard(held_key("code"))


def calls(server: redis.Redis, command: str) -> int:
    """How often Redis has run a command."""
    return int(server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def reply_stream(server: redis.Redis, request: Request) -> str:
    return server.hget(record_key(request.request_id), "reply_to").decode()


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
    waiting = [entry.decode() for entry in server.lrange(queue_lists("code")[1], 0, -1)]
    assert waiting == [request.request_id for request in (after, expired, before)]
    assert [reply_stream(server, request) == DEAD for request in (after, expired, before)] == [
        True,
        False,
        True,
    ]
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
    assert reply_stream(server, request) != DEAD
    assert (messages(server), server.zcard(held_key("code"))) == (1, 1)
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
    await until(lambda: submit.states(server, [request.request_id])[request.request_id] == "done")
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
    assert submit.states(server, [request.request_id]) == {request.request_id: "queued"}


async def test_a_cancelled_message_that_is_still_queued_runs_once(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order())
    left(server, request)
    await cancel(server, request)
    posted = await client.reattach(again(request))
    assert submit.states(server, [request.request_id]) == {request.request_id: "queued"}
    start_worker()
    assert (await posted.outcome()).ok
    assert len(notes.starts) == 1


async def test_a_failed_request_whose_worker_died_before_it_freed_the_slot_is_queued_once(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order())
    held(server, request)
    commit(server, Outcome.failed(request, Cause.TIMEOUT), "", 60)
    posted = await client.reattach(again(request))
    assert messages(server) == 1
    start_worker()
    assert (await posted.outcome()).ok
    assert messages(server) == 0
    assert len(notes.starts) == 1


async def test_a_cancelled_request_that_still_runs_ends_before_it_is_posted_again(
    client: QueueClient, server: redis.Redis, notes: Notes
) -> None:
    """Regression: the worker that was about to end it gave CANCELLED to the client that had reattached."""
    request = request_for(notes.order())
    held(server, request)
    await cancel(server, request)
    before = calls(server, "evalsha")
    reattaching = asyncio.create_task(client.reattach(again(request)))
    await until(lambda: calls(server, "evalsha") > before + 1)
    assert not reattaching.done()
    assert messages(server) == 1
    commit(server, Outcome.failed(request, Cause.CANCELLED), "", 60)
    posted = await reattaching
    assert posted.outcome_now is None
    assert submit.states(server, [request.request_id]) == {request.request_id: "queued"}


async def test_a_cancelled_request_that_runs_to_its_end_is_used(
    client: QueueClient, server: redis.Redis, notes: Notes
) -> None:
    request = request_for(notes.order())
    held(server, request)
    await cancel(server, request)
    reattaching = asyncio.create_task(client.reattach(again(request)))
    done = Outcome(request_id=request.request_id, kind="code", result=Success())
    commit(server, done, "", 60)
    assert await (await reattaching).outcome() == done


async def test_a_cancelled_request_of_a_worker_that_died_is_posted_again_after_its_lease(
    client: QueueClient, server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(), timeout_s=4 * WAIT_S)
    held(server, request, lease_s=1.0)
    await cancel(server, request)
    start_worker()
    assert (await (await client.reattach(again(request))).outcome()).ok
    assert len(notes.starts) == 1


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
