"""What a trial and a soak are played on: the configuration that workers and rollouts read, and an environment
that leads nobody elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from coordinator.config.settings import ServiceConfig
from llmi.demo.build import cache_folder
from llmi.load.chaos.provider import Provider
from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV, JudgeEndpoint, JudgeSettings
from workers.settings import (
    REDIS_ENV,
    BlobSettings,
    ImageModelSettings,
    QueueSettings,
    SearchSettings,
    ToolSettings,
)

LEASE_S = 5.0


def config_of(folder: Path, port: int, provider: Provider) -> ServiceConfig:
    """What workers and rollouts of the trial read: real tools, images and judges by the provider. `port`:
    where Redis is reached.
    """
    made = ImageModelSettings(
        provider="openai", base_url=provider.url, model="chaos", size="64x64", allow_private_addresses=True
    )
    judge = JudgeEndpoint(provider="openai", base_url=provider.url, model="chaos")
    return ServiceConfig(
        name="chaos",
        queue=QueueSettings(redis_url=f"redis://127.0.0.1:{port}/0", lease_s=LEASE_S),
        blobs=BlobSettings(url=str(folder / "blobs")),
        tools=ToolSettings(
            search=SearchSettings(library=str(cache_folder() / "library")), diffusion=made, edit=made
        ),
        judges=JudgeSettings(text=judge, image=judge),
    )


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Without the variables that would lead workers elsewhere."""
    before = {name: os.environ.pop(name, None) for name in (REDIS_ENV, TEXT_URL_ENV, IMAGE_URL_ENV)}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
