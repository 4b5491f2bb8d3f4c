"""Posting without waiting: each request once, and where it is afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from conftest import StartWorker
from queue_requests import Notes, request_for, until

from workers import submit
from workers.messages import Request
from workers.settings import QueueSettings


@pytest.fixture
def server(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with submit.connect(queue_settings) as client:
        yield client


def state(server: redis.Redis, request: Request) -> str:
    return submit.states(server, request.kind, [request.request_id])[request.request_id]


async def test_a_request_goes_from_absent_to_done(
    server: redis.Redis, obedient: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(seconds=1.0))
    assert state(server, request) == "absent"
    assert submit.post(server, [request]) == [request.request_id]
    assert state(server, request) == "queued"
    obedient()
    await notes.started()
    assert state(server, request) == "running"
    await until(lambda: state(server, request) == "done")
    outcomes = submit.outcomes(server, [request.request_id, "unknown"])
    assert list(outcomes) == [request.request_id]
    assert outcomes[request.request_id].ok


async def test_posting_twice_is_posting_once(
    server: redis.Redis, obedient: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(seconds=0.5))
    assert submit.post(server, [request, request]) == [request.request_id]
    assert submit.post(server, [request]) == []  # queued
    obedient(concurrency=2)
    await notes.started()
    assert submit.post(server, [request]) == []  # running
    await until(lambda: state(server, request) == "done")
    assert submit.post(server, [request]) == []
    assert len(notes.starts) == 1


async def test_a_worker_that_dies_gives_the_request_back(
    server: redis.Redis, obedient: StartWorker, notes: Notes
) -> None:
    request = request_for(notes.order(act="hang_once"))
    submit.post(server, [request])
    first = obedient()
    await notes.started()
    first.kill()
    assert state(server, request) == "running"  # its lease has not run out
    obedient()
    await until(lambda: state(server, request) == "done")
    assert len(notes.starts) == 2


def test_many_are_posted_and_found(server: redis.Redis, notes: Notes) -> None:
    requests = [request_for(notes.order()) for _ in range(600)]
    assert len(submit.post(server, requests)) == 600
    found = submit.states(server, "code", [request.request_id for request in requests])
    assert set(found.values()) == {"queued"}
    assert len(found) == 600
