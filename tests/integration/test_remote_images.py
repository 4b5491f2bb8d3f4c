"""A worker of remote image providers: its jobs share one process, and several run at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
from conftest import StartWorker
from fake_services import FakeServices

from workers.client.client import QueueClient
from workers.messages import DiffusionPayload, Outcome, Request, Success
from workers.settings import QueueSettings


async def generate(settings: QueueSettings, number: int) -> list[Outcome]:
    async with asyncio.timeout(90), QueueClient(settings) as client:
        payloads = [DiffusionPayload(prompt=f"fox {n}") for n in range(number)]
        handles = [await client.post(Request.make("diffusion", one, timeout_s=80)) for one in payloads]
        return [await handle.outcome() for handle in handles]


def test_jobs_of_a_remote_provider_are_threads_of_one_process(
    worker: StartWorker, queue_settings: QueueSettings, config_file: Path
) -> None:
    with FakeServices() as services:
        remote = {"provider": "openai", "base_url": f"{services.url}/v1", "model": "m"}
        document = json.loads(config_file.read_text())
        config_file.write_text(json.dumps(document | {"tools": {"diffusion": remote, "edit": remote}}))
        process = worker(["diffusion", "edit"], 4)
        outcomes = asyncio.run(generate(queue_settings, 8))
    assert all(isinstance(outcome.result, Success) for outcome in outcomes)
    assert {outcome.worker.rpartition(":")[2] for outcome in outcomes} == {str(process.pid)}
    assert "threads" in psutil.Process(process.pid).cmdline()
