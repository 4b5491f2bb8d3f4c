"""Images from any endpoint with OpenAI's API: vLLM-Omni, SGLang, Volcengine Ark, OpenAI.

There are three dialects, by the host, and by the model's name for Ark behind another address:

- `ark`: an edit is a generation with an `image`; `watermark: false` is sent.
- `openai`: only the standard fields.
- `server`: also the fields of a diffusion model: negative prompt, steps, guidance, seed.

The last two edit through multipart `/images/edits`.

Invariants: a refused prompt or image is `ModelFault(PROMPT_REFUSED)`, also with status 200; a URL in an
answer is fetched through the guard.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import JsonValue

from workers import event_loop, images, pixels
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api, keys
from workers.providers.http.client import fetch, guarded_session
from workers.providers.http.endpoint import address_problems, key_problems, model_problems
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import ImageModelSettings

NAME = "openai"
ARK_MODELS = ("doubao-", "seedream", "seededit")
Dialect = Literal["ark", "openai", "server"]


def dialect(settings: ImageModelSettings) -> Dialect:
    """The dialect of this endpoint."""
    if keys.is_ark(settings.base_url) or settings.model.startswith(ARK_MODELS):
        return "ark"
    return "openai" if keys.is_openai(settings.base_url) else "server"


class OpenAIImages(Provider[ImageModelSettings]):
    """The endpoint at `base_url` of the tool, which serves `model`."""

    environment = (keys.ARK_KEY_ENV, keys.OPENAI_KEY_ENV)

    def service(self) -> str:
        return keys.service_name(NAME, self.settings.base_url)

    def check(self) -> list[str]:
        problems = address_problems(f"{self.field}.base_url", self.settings.base_url)
        problems += model_problems(f"{self.field}.model", self.settings.model)
        return problems + key_problems(f"{self.field}.api_key_env", _key_env(self.settings))

    def call(self, request: ProviderRequest) -> ProviderImage:
        fields = _fields(request.text, self.settings, request.seed)
        # Encoding takes long for a large image, and must not block the loop.
        if request.image is None:
            call = _call(self.settings, request.deadline, "/images/generations", fields)
        elif dialect(self.settings) == "ark":
            fields["image"] = pixels.data_uri(request.image)
            call = _call(self.settings, request.deadline, "/images/generations", fields)
        else:
            picture = pixels.encoded(request.image)
            call = _call(self.settings, request.deadline, "/images/edits", fields, picture)
        return event_loop.run(_ask(self.settings, call, fields), request.deadline, request.cancelled)


PROVIDER = OpenAIImages


def _key_env(settings: ImageModelSettings) -> str:
    return keys.key_env(settings.api_key_env, settings.base_url)


def _fields(prompt: str, settings: ImageModelSettings, seed: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": settings.model, "prompt": prompt, "n": 1, "size": settings.size}
    kind = dialect(settings)
    if kind == "ark":
        del fields["n"]  # Ark has another field for it (sequential_image_generation) and makes one by default
        return {**fields, "response_format": "b64_json", "watermark": False}
    if kind == "openai":
        return fields
    return {
        **fields,
        "response_format": "b64_json",
        "negative_prompt": settings.negative_prompt,
        "num_inference_steps": settings.steps,
        "true_cfg_scale": settings.guidance,
        "seed": seed % 2**31,
    }


def _call(
    settings: ImageModelSettings, deadline: float, path: str, fields: dict[str, Any], picture: bytes = b""
) -> api.Call:
    """`picture`: sent as a form with the fields; without one they are JSON."""
    variable = _key_env(settings)
    key = keys.required_key(variable, NAME) if variable else ""

    def form() -> aiohttp.FormData:
        data = aiohttp.FormData({name: str(value) for name, value in fields.items()})
        data.add_field("image", picture, filename="image.png", content_type="image/png")
        return data

    return api.Call(
        provider=NAME,
        method="POST",
        url=settings.base_url.rstrip("/") + path,
        deadline=deadline,
        body=None if picture else fields,
        form=form if picture else None,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        key=key,
        expects="data",
        model_text=str(fields.get("prompt", "")),
    )


async def _ask(settings: ImageModelSettings, call: api.Call, fields: dict[str, Any]) -> ProviderImage:
    data = await _bytes(call, await api.send(call), settings)
    source: dict[str, JsonValue] = {
        "provider": NAME,
        "model": settings.model,
        "host": urlsplit(settings.base_url).hostname or "",
    }
    if "seed" in fields:  # only for the dialect `server`
        source |= {"seed": fields["seed"], "steps": settings.steps}
    return ProviderImage(await images.checked_async(data, provider=NAME), source)


async def _bytes(call: api.Call, answer: api.Answer, settings: ImageModelSettings) -> bytes:
    """The first image of the answer, from base64 or a URL, whichever is not empty."""
    entries = answer.get("data")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        encoded, url = (_filled(entry.get(name)) for name in ("b64_json", "url"))
        if encoded or url.startswith("data:"):
            return images.from_base64(encoded or url, provider=NAME)
        if url:
            allow = settings.allow_private_addresses
            async with guarded_session(allow_private=allow) as session:
                return await fetch(
                    session,
                    url,
                    deadline=call.deadline,
                    allow_private=allow,
                    trust_proxy=settings.trust_proxy,
                )
    # Services answer 200 with an error in place of a refused image, or beside an empty list.
    if isinstance(entries, list) and any(entries):
        raise api.refused(call, 200, answer)
    raise InfrastructureFault(Cause.BAD_ANSWER, "the answer holds no image", provider=NAME)


def _filled(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
