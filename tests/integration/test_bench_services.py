"""The simulated services of the overlap benchmark on real Celery workers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llmi.load.simulated.services import MEAN_S, SERVICES_ENV, ServiceSettings
from policy.document import Document, Task, TextPart
from rewards.judges import TEXT_KIND
from rewards.judges.payloads import JudgeTextPayload
from workers.client.client import QueueClient
from workers.messages import DiffusionPayload, Outcome, Request
from workers.process.worker import WorkerProcess
from workers.storage.blobs import BlobStore

SERVICES = ServiceSettings(
    mean_s={**MEAN_S, "diffusion": 0.4, "judge_text": 0.05}, slots=dict.fromkeys(MEAN_S, 2), seed=5
)
START_S = 60.0


@pytest.fixture
def timed(config_file: Path, tmp_path: Path):
    started = []

    def start(queue: str) -> None:
        process = WorkerProcess(
            (queue,), config_file, SERVICES.slots[queue], tmp_path / "log", f"{queue}-{tmp_path.name}",
            app="llmi.load.simulated.timed_app",
            extra_env={SERVICES_ENV: SERVICES.model_dump_json()},
            pool="threads",
        )  # fmt: skip
        started.append(process)
        process.start()
        process.wait_ready(START_S)

    yield start
    for process in started:
        process.kill()


async def ask(settings, requests: list[Request]) -> list[Outcome]:
    async with asyncio.timeout(60), QueueClient(settings) as client:
        posted = [await client.post(request) for request in requests]
        return [await each.outcome() for each in posted]


def test_a_tool_takes_as_long_as_drawn_in_as_many_slots_as_it_has(timed, queue_settings, config_file):
    timed("diffusion")
    requests = [Request.make("diffusion", DiffusionPayload(prompt="p"), timeout_s=50) for _ in range(6)]
    outcomes = asyncio.run(ask(queue_settings, requests))
    store = BlobStore(json.loads(config_file.read_text())["blobs"]["url"])
    assert {store.get(outcome.result.images[0])[:4] for outcome in outcomes} == {b"\x89PNG"}

    lasted = sorted(outcome.finished - outcome.started for outcome in outcomes)
    drawn = sorted(SERVICES.draw("diffusion", number) for number in range(1, 7))
    # A lower bound on time: a job ends in another process, which holds no clock of this test.
    assert all(took >= asked - 0.01 for took, asked in zip(lasted, drawn, strict=True))

    moments = sorted([(o.started, 1) for o in outcomes] + [(o.finished, -1) for o in outcomes])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most == 2


def test_a_judge_judges_by_rules(timed, queue_settings):
    timed("judge_text")
    document = Document(rollout_id="u_0", task=Task(question="A cat"), parts=(TextPart(text="A cat sits."),))
    request = Request.make(TEXT_KIND, JudgeTextPayload.of(document), timeout_s=50)
    [outcome] = asyncio.run(ask(queue_settings, [request]))
    assert set(outcome.result.verdict) == {"text", "image_tags"}
    assert outcome.result.source == {"judge": "rules"}
