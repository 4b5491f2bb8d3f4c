"""A system to put load on: Redis, a provider of images and verdicts, and workers, all of this machine.

Invariants: everything lies in one folder and ends with the context; Redis and judges of the environment are
not used.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.config.settings import ServiceConfig
from coordinator.console.stages import Step
from coordinator.host.environment import environment
from coordinator.host.redis_server import EmbeddedRedis
from llmi.demo.library import build_library
from llmi.load.testbed.provider import Provider
from llmi.load.testbed.proxy import Proxy
from llmi.load.testbed.workers import WorkersUnderTest
from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV, JudgeEndpoint, JudgeSettings
from workers.settings import (
    REDIS_ENV,
    BlobSettings,
    ImageModelSettings,
    QueueSettings,
    SearchSettings,
    ToolSettings,
)
from workers.storage.cache import cache_folder

ISOLATED = dict.fromkeys((REDIS_ENV, TEXT_URL_ENV, IMAGE_URL_ENV))
"""Removes the variables that name another Redis or other judges."""
LEASE_S = 5.0
AUDITED_S = 86_400  # outcomes stay in Redis for the audit


def make_config(folder: Path, port: int, provider: Provider, recorded_ttl_s: int) -> ServiceConfig:
    """Real search and code; images and verdicts by `provider`. `port`: of Redis, or of its proxy."""
    url = f"redis://127.0.0.1:{port}/0"
    queue = QueueSettings(redis_url=url, lease_s=LEASE_S, recorded_ttl_s=recorded_ttl_s)
    made = ImageModelSettings(
        provider="openai", base_url=provider.url, model="chaos", size="64x64", allow_private_addresses=True
    )
    judge = JudgeEndpoint(provider="openai", base_url=provider.url, model="chaos")
    return ServiceConfig(
        name="chaos",
        queue=queue,
        blobs=BlobSettings(url=str(folder / "blobs")),
        tools=ToolSettings(
            search=SearchSettings(library=str(cache_folder() / "library")), diffusion=made, edit=made
        ),
        judges=JudgeSettings(text=judge, image=judge),
    )


@dataclass(frozen=True)
class System:
    """What is running. Workers and rollouts reach Redis through `proxy`, where there is one."""

    config: ServiceConfig
    server: EmbeddedRedis
    proxy: Proxy | None
    provider: Provider
    workers: WorkersUnderTest


@contextlib.asynccontextmanager
async def running_system(
    folder: Path, workers: int, step: Step, *, proxied: bool = False, recorded_ttl_s: int = AUDITED_S
) -> AsyncIterator[System]:
    """Start everything in `folder`, which is empty; `workers`: how many.

    `recorded_ttl_s`: seconds until an outcome that the ledger has expires.
    Raises `InfrastructureFault` when the workers do not start.
    """
    logs = folder / "logs"
    provider = Provider(logs / "provider.log")
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(ISOLATED))
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        proxy = stack.enter_context(Proxy(server.port)) if proxied else None
        stack.callback(provider.kill)
        await asyncio.to_thread(provider.start)
        drawing = "drawing the image library"
        step(drawing, None, "")
        await asyncio.to_thread(
            build_library, cache_folder() / "library", progress=lambda share: step(drawing, share, "")
        )
        config = make_config(folder, proxy.port if proxy else server.port, provider, recorded_ttl_s)
        config.save(folder)
        running = WorkersUnderTest(folder / "config.json", logs, workers)
        stack.callback(running.stop)
        await asyncio.to_thread(running.start, step)
        yield System(config, server, proxy, provider, running)
