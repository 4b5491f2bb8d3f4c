"""The configuration of workers and rollouts under load, and the environment that they start in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from coordinator.config.settings import ServiceConfig
from llmi.load.testbed.provider import Provider
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

LEASE_S = 5.0


def make_config(
    folder: Path, port: int, provider: Provider, result_ttl_s: int | None = None
) -> ServiceConfig:
    """Real search and code; images and verdicts by `provider`. `port`: of Redis, or of its proxy."""
    queue = QueueSettings(redis_url=f"redis://127.0.0.1:{port}/0", lease_s=LEASE_S)
    if result_ttl_s is not None:
        queue = queue.model_copy(update={"result_ttl_s": result_ttl_s})
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


@contextlib.contextmanager
def isolated_environment() -> Iterator[None]:
    """Without the variables that name another Redis or other judges."""
    before = {name: os.environ.pop(name, None) for name in (REDIS_ENV, TEXT_URL_ENV, IMAGE_URL_ENV)}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
