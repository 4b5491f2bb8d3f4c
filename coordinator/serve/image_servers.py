"""Probe of an image server: one small image, requested as the tools request it.

A model with "edit" in its name is given an image to change.
"""

from __future__ import annotations

import time

from PIL import Image

from coordinator.serve.serving import ServerSpec
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.providers.image.openai import OpenAIImages
from workers.providers.provider import ProviderRequest
from workers.settings import ImageModelSettings

PROBE_S = 600.0  # the first image also compiles kernels
PROMPT = "A red square on a white ground"
SIDE = 256


def probe_server(one: ServerSpec) -> float:
    """Request one image. Returns the seconds it took; raises `InfrastructureFault` when there was none."""
    settings = ImageModelSettings(
        provider="openai",
        base_url=one.url,
        model=one.model,
        api_key_env="",
        size=f"{SIDE}x{SIDE}",
        steps=2,
        allow_private_addresses=True,
    )
    started = time.monotonic()
    deadline = time.time() + PROBE_S
    ground = Image.new("RGB", (SIDE, SIDE), "white") if "edit" in one.model.lower() else None
    try:
        OpenAIImages(settings, "edit" if ground else "diffusion").call(
            ProviderRequest(PROMPT, deadline=deadline, image=ground)
        )
    except ModelFault as refused:
        raise InfrastructureFault(
            Cause.BAD_ANSWER, f"{one.name} refused to make an image: {refused}"
        ) from refused
    return time.monotonic() - started
