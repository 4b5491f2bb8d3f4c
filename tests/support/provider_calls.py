"""One call to the provider that settings name, as the tools make it."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from workers.providers import registry
from workers.providers.provider import ProviderImage, ProviderRequest
from workers.settings import ImageModelSettings, SearchSettings


def search(query: str, settings: SearchSettings, *, deadline: float) -> ProviderImage:
    return registry.make("search", settings).call(ProviderRequest(query, deadline))


def generate(
    prompt: str,
    settings: ImageModelSettings,
    *,
    seed: int,
    deadline: float,
    cancelled: Callable[[], bool] = lambda: False,
) -> ProviderImage:
    request = ProviderRequest(prompt, deadline, seed, cancelled=cancelled)
    return registry.make("diffusion", settings).call(request)


def edit(
    prompt: str, picture: Image.Image, settings: ImageModelSettings, *, seed: int, deadline: float
) -> ProviderImage:
    return registry.make("edit", settings).call(ProviderRequest(prompt, deadline, seed, picture))
