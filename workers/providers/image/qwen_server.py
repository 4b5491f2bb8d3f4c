"""Servers of the original's own shape: `POST {base}/generate/` {prompt} and `POST {base}/edit/` {prompt,
image_b64}, each answered with {status, images: [base64]}.

A request holds the prompt, the picture and nothing else, so an error that names no other cause (an address, a
missing field, memory) is a refusal of these and the model's fault, by status or by the answer's `status`.
Such a server takes no seed, so its images do not repeat. Its address comes from the settings' `base_url`,
else from QWEN_IMAGE_SERVER_URL or QWEN_EDIT_SERVER_URL.
"""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from PIL import Image

from workers import images
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api, keys
from workers.providers.http.client import run_until
from workers.providers.made import Made
from workers.settings import ImageModelSettings

PROVIDER = "qwen_server"


def generate(prompt: str, settings: ImageModelSettings, *, seed: int, deadline: float) -> Made:
    """An image for `prompt`. Blocking, at most until `deadline` (Unix seconds); `seed` has no effect."""
    base = keys.qwen_url(settings, keys.GENERATE_URL_ENV)
    return run_until(deadline, _ask(f"{base}/generate/", {"prompt": prompt}, deadline))


def edit(
    prompt: str, picture: Image.Image, settings: ImageModelSettings, *, seed: int, deadline: float
) -> Made:
    """`picture` (RGB) changed as `prompt` says. Blocking, at most until `deadline`; `seed` has no effect."""
    base = keys.qwen_url(settings, keys.EDIT_URL_ENV)
    body = {"prompt": prompt, "image_b64": base64.b64encode(images.encoded(picture)).decode()}
    return run_until(deadline, _ask(f"{base}/edit/", body, deadline))


async def _ask(url: str, body: dict[str, str], deadline: float) -> Made:
    call = api.Call(
        provider=PROVIDER,
        method="POST",
        url=url,
        body=body,
        deadline=deadline,
        only_content=True,
        wrote=body["prompt"],
    )
    answer = await api.ask(call)
    made, status = answer.get("images"), answer.get("status", "success")
    good = isinstance(status, str) and status.lower() in ("success", "ok")
    first = next((one for one in made if isinstance(one, str) and one), "") if isinstance(made, list) else ""
    if not good or not first:
        failure = api.refused(call, 200, answer)
        if isinstance(failure, api.Refused):
            detail = f"status {call.said(status)!r}: {failure.detail}"
            raise InfrastructureFault(Cause.BAD_ANSWER, detail, provider=PROVIDER)
        raise failure
    data = images.from_base64(first, provider=PROVIDER)
    return Made(
        await images.checked_aside(data, provider=PROVIDER),
        {"provider": PROVIDER, "host": urlsplit(url).hostname or ""},
    )
