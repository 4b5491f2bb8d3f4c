"""Posting without waiting: each request once, and its state afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from conftest import StartWorker
from queue_requests import Notes, request_for
from waiting import until

from workers.broker.claims import claim
from workers.broker.keys import queue_lists
from workers.client import blocking as submit
from workers.messages import Request
from workers.redis_client import connect_redis
from workers.settings import QueueSettings


@pytest.fixture
def server(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with connect_redis(queue_settings.url) as client:
        yield client


def state(server: redis.Redis, request: Request) -> str:
    return submit.states(server, [request.request_id])[request.request_id]


def posted(server: redis.Redis, requests: list[Request], may_wait: int = 1000) -> str:
    """The common state of all requests after posting them."""
    [state] = set(submit.post(server, requests, may_wait).values())
    return state


async def test_a_request_goes_from_absent_to_done(
    server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(seconds=1.0))
    assert state(server, request) == "absent"
    assert posted(server, [request]) == "posted"
    assert state(server, request) == "queued"
    start_worker()
    await notes.started()
    assert state(server, request) == "running"
    await until(lambda: state(server, request) == "done")
    outcomes = submit.outcomes(server, [request.request_id, "unknown"])
    assert list(outcomes) == [request.request_id]
    assert outcomes[request.request_id].ok


async def test_posting_twice_is_posting_once(
    server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(seconds=0.5))
    assert posted(server, [request, request]) == "posted"
    assert posted(server, [request]) == "queued"
    start_worker(concurrency=2)
    await notes.started()
    assert posted(server, [request]) == "running"
    await until(lambda: state(server, request) == "done")
    assert posted(server, [request]) == "done"
    assert len(notes.starts) == 1


async def test_a_request_of_a_worker_that_dies_is_requeued(
    server: redis.Redis, start_worker: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(act="hang_once"))
    posted(server, [request])
    first = start_worker()
    await notes.started()
    first.kill()
    assert state(server, request) == "running"  # its lease has not expired
    start_worker()
    await until(lambda: state(server, request) == "done")
    assert len(notes.starts) == 2


def test_many_are_posted_and_found(server: redis.Redis, notes: Notes) -> None:
    requests = [request_for(notes.order()) for _ in range(600)]
    assert posted(server, requests) == "posted"
    found = submit.states(server, [request.request_id for request in requests])
    assert set(found.values()) == {"queued"}
    assert len(found) == 600


def test_a_full_queue_gets_no_more_requests(server: redis.Redis, notes: Notes) -> None:
    requests = [request_for(notes.order(), seed=number) for number in range(5)]
    found = submit.post(server, requests, 3)
    assert list(found.values()) == ["posted"] * 3 + ["absent"] * 2
    assert server.llen(queue_lists("code")[1]) == 3
    [first] = claim(server, ["code"], 1, "w", 60.0)
    assert first.request_id == requests[0].request_id
    again = submit.post(server, requests[1:], 3)
    assert list(again.values()) == ["queued", "queued", "posted", "absent"]
