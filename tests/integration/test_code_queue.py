"""The code tool behind the queue: charts by way of Redis and real Celery worker processes, each with its own
zygote.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
from conftest import StartWorker

from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import CodePayload, Failure, Outcome, Request, Success
from workers.settings import QueueSettings
from workers.storage.blobs import BlobStore

GONE_S = 20.0


async def draw(settings: QueueSettings, codes: list[str]) -> list[Outcome]:
    async with asyncio.timeout(90), QueueClient(settings) as client:
        requests = [Request.make("code", CodePayload(code=code), timeout_s=80) for code in codes]
        posted = [await client.post(request) for request in requests]
        return [await each.outcome() for each in posted]


def zygotes(worker_pid: int) -> list[psutil.Process]:
    """The zygotes of one worker, without their waiting parents. Other tests may have zygotes too."""
    below = psutil.Process(worker_pid).children(recursive=True)
    named = [process for process in below if "workers.sandbox.jailed.zygote" in process.cmdline()]
    return [process for process in named if process.children() == []]


def test_charts_and_failures_are_returned(
    worker: StartWorker, queue_settings: QueueSettings, config_file: Path
) -> None:
    """A job that crashes its process affects neither the worker nor other charts."""
    process = worker(["code"], 2)
    crash = "import ctypes; ctypes.string_at(0)"
    codes = [f"plt.plot([{n}, 2])" for n in range(4)] + [crash, "x = 1"]
    outcomes = asyncio.run(draw(queue_settings, codes))
    store = BlobStore(json.loads(config_file.read_text())["blobs"]["url"])
    for outcome in outcomes[:4]:
        assert isinstance(outcome.result, Success), outcome.result
        assert store.get(outcome.result.images[0]).startswith(b"\x89PNG")
    causes = [outcome.result.cause for outcome in outcomes[4:] if isinstance(outcome.result, Failure)]
    assert causes == [Cause.CODE_RAISED, Cause.NO_FIGURE]
    mine = zygotes(process.pid)
    assert len(mine) == 2
    process.kill()
    _, alive = psutil.wait_procs(mine, timeout=GONE_S)
    assert not alive
