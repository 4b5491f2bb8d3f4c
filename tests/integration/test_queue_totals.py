"""The totals in Redis: each finished request counts once, with its service time."""

from __future__ import annotations

import redis
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import ask

from workers.broker.depths import read_depths
from workers.broker.outcomes import commit
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Failure, Outcome, Success
from workers.settings import QueueSettings


def test_a_request_with_several_outcomes_counts_once(raw: redis.Redis, queue_settings: QueueSettings) -> None:
    for result in (Failure(cause=Cause.QUOTA), Success(), Success()):
        ended = Outcome(request_id="a", kind="code", result=result, started=100.0, finished=102.5)
        commit(raw, ended, "", 60)
    depth = read_depths(queue_settings.url)["code"]
    assert (depth.finished, depth.ran, depth.service_s) == (1, 1, 2.5)


def test_a_request_that_never_ran_adds_no_service_time(
    raw: redis.Redis, queue_settings: QueueSettings
) -> None:
    commit(raw, Outcome(request_id="a", kind="code", result=Failure(cause=Cause.CANCELLED)), "", 60)
    commit(
        raw, Outcome(request_id="b", kind="code", result=Success(), started=100.0, finished=100.25), "", 60
    )
    depths = read_depths(queue_settings.url)
    assert (depths["code"].finished, depths["code"].ran, depths["code"].service_s) == (2, 1, 0.25)
    assert (depths["search"].finished, depths["search"].service_s) == (0, 0.0)


async def test_a_worker_measures_how_long_a_job_took(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["code"], app="queue_app")
    async with QueueClient(queue_settings) as client:
        for _ in range(2):
            assert (await ask(client, Order(seconds=0.3))).ok
    depth = read_depths(queue_settings.url)["code"]
    assert (depth.finished, depth.ran) == (2, 2)
    assert 0.6 <= depth.service_s < 3.0
