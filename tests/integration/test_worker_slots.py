"""A real worker claims for its free slots only, over all its queues and levels."""

from __future__ import annotations

import json
from pathlib import Path

import redis
from conftest import StartWorker
from fake_services import FakeServices
from queue_requests import Notes, request_for
from waiting import until

from rewards.judges.payloads import JudgeTextPayload
from workers.broker.depths import read_depths
from workers.broker.keys import record_key
from workers.broker.registry import read_workers
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import HIGH, LOW, NORMAL, Request
from workers.settings import QueueSettings

QUEUES = ("search", "judge_text")


async def test_a_worker_with_one_slot_never_holds_two_requests(
    worker: StartWorker, client: QueueClient, queue_settings: QueueSettings, notes: Notes
) -> None:
    """A real worker on two queues with three levels each."""
    running = worker(list(QUEUES), app="queue_app")
    assert [one.queues for one in read_workers(queue_settings.url)] == [QUEUES]
    posted: list[RequestHandle] = []
    for seed, priority in enumerate([LOW, HIGH, NORMAL] * 4):
        for kind in QUEUES:
            request = request_for(notes.order(seconds=0.05), kind, seed=seed)
            posted.append(await client.post(request.model_copy(update={"priority": priority})))
    held: list[int] = []

    def done() -> bool:
        depths = read_depths(queue_settings.url)
        held.append(sum(depths[kind].running for kind in QUEUES))
        return all(one.outcome_now is not None for one in posted)

    await until(done, every_s=0.005)
    assert max(held) == 1
    assert all([(await one.outcome()).ok for one in posted])
    assert running.alive
    assert len(notes.starts) == len(posted)


async def test_a_request_that_waits_for_its_provider_has_used_no_attempt(
    worker: StartWorker, client: QueueClient, config_file: Path, raw: redis.Redis
) -> None:
    with FakeServices() as services:
        services.judge.status = 503
        document = json.loads(config_file.read_text())
        document["queue"]["breaker"] = {"failures": 1, "open_s": 60.0}
        document["judges"] = {"text": {"provider": "openai", "base_url": f"{services.url}/v1", "model": "m"}}
        config_file.write_text(json.dumps(document))
        running = worker(["judge_text"])
        payload = JudgeTextPayload(question="Why?", parts=())
        posted = await client.post(Request.make("judge_text", payload, timeout_s=120.0))
        record = record_key(posted.request.request_id)
        await until(lambda: raw.hmget(record, "state", "claims") == [b"waiting", b"1"])
        assert raw.hget(record, "lost") is None
        await until(lambda: "circuit open" in running.log.read_text())
        assert "the process that ran it died" not in running.log.read_text()
