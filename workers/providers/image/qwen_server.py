"""The image server of the original LLM-I: `POST {base}/generate/` {prompt} and `POST {base}/edit/` {prompt,
image_b64}, each answered with {status, images: [base64]}.

A request holds only the prompt and the image. An error that names no other cause (an address, a missing
field, memory) is therefore a refusal of these and the model's fault, by status or by the answer's `status`.
The server takes no seed, so its images are not repeatable.
"""

from __future__ import annotations

import base64
import os
from urllib.parse import urlsplit

from workers import event_loop, images, pixels
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api, keys
from workers.providers.http.endpoint import address_problems
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import ImageModelSettings

NAME = "qwen_server"


class QwenServer(Provider[ImageModelSettings]):
    """A server at `base_url` of the tool, or else at QWEN_IMAGE_SERVER_URL or QWEN_EDIT_SERVER_URL. The seed
    has no effect.
    """

    environment = (keys.GENERATE_URL_ENV, keys.EDIT_URL_ENV)

    @property
    def variable(self) -> str:
        return keys.EDIT_URL_ENV if self.tool == "edit" else keys.GENERATE_URL_ENV

    @property
    def url(self) -> str:
        """Base URL, "" when neither the settings nor the environment name one."""
        return (self.settings.base_url or os.environ.get(self.variable, "")).strip().rstrip("/")

    def service(self) -> str:
        return keys.service_name(NAME, self.url)

    def check(self) -> list[str]:
        return address_problems(f"{self.field}.base_url (or environment variable {self.variable})", self.url)

    def call(self, request: ProviderRequest) -> ProviderImage:
        path, body = "/generate/", {"prompt": request.text}
        if request.image is not None:
            path = "/edit/"
            body["image_b64"] = base64.b64encode(pixels.encoded(request.image)).decode()
        asking = _ask(f"{self.url}{path}", body, request.deadline)
        return event_loop.run(asking, request.deadline, request.cancelled)


PROVIDER = QwenServer


async def _ask(url: str, body: dict[str, str], deadline: float) -> ProviderImage:
    call = api.Call(
        provider=NAME,
        method="POST",
        url=url,
        body=body,
        deadline=deadline,
        only_content=True,
        model_text=body["prompt"],
    )
    answer = await api.send(call)
    made, status = answer.get("images"), answer.get("status", "success")
    good = isinstance(status, str) and status.lower() in ("success", "ok")
    first = next((one for one in made if isinstance(one, str) and one), "") if isinstance(made, list) else ""
    if not good or not first:
        failure = api.refused(call, 200, answer)
        if isinstance(failure, api.Refused):
            detail = f"status {call.redacted(status)!r}: {failure.detail}"
            raise InfrastructureFault(Cause.BAD_ANSWER, detail, provider=NAME)
        raise failure
    data = images.from_base64(first, provider=NAME)
    return ProviderImage(
        await images.checked_async(data, provider=NAME),
        {"provider": NAME, "host": urlsplit(url).hostname or ""},
    )
