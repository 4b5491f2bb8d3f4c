"""A model behind any OpenAI-compatible chat endpoint (vLLM, SGLang, OpenAI) as author, streamed.

Invariants:
- Never past `timeout_s`, whatever the server does.
- A stream that ends without a finish_reason is PROVIDER_DOWN, and no document.
- A request is retried (as `workers.providers.http.api` does) only until the answer begins, since tools may
  then work on the text.
- A text that the endpoint's content filter stops, or that the model declines to write, is the model's fault:
  a retry would end the same way.
- A prompt too long for the endpoint is an infrastructure failure: the model did not write it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aiohttp

from evaluation.authors.author import Finish, conversation
from evaluation.authors.chunks import NAME, EventStream, author_failure, chunks, delta, truncated
from evaluation.settings import AuthorSettings
from policy.document import Task
from rewards.judges.pictures import jpeg_uri
from workers import images as gate
from workers.errors import Cause, InfrastructureFault
from workers.providers.http import api, keys
from workers.providers.http.client import connections, proxy_of, read_bounded

MAX_ERROR_BYTES = 2**20


class OpenAIAuthor:
    """Stateless: any number of texts at once, from any event loop."""

    def __init__(self, settings: AuthorSettings):
        self._settings = settings

    async def write(self, task: Task, images: Sequence[bytes], seed: int) -> AsyncGenerator[str | Finish]:
        """See `evaluation.authors.author.Author`."""
        decoding = functools.partial(self._call, task, tuple(images), seed)
        call = await gate.decode_in_thread("store", decoding)
        model, reason, stream = self._settings.model, "", EventStream()
        response: aiohttp.ClientResponse = await api.retrying(call.deadline)(_open, await connections(), call)
        try:
            while not reason:
                data = await _read(response, call.deadline)
                for chunk in chunks(call, stream, data):
                    model = call.redacted(chunk.get("model")) or model
                    text, reason = delta(chunk)
                    if text:
                        yield text
                    if reason:
                        break
                if not data:
                    break
        finally:
            response.close()
        yield Finish(model=model, truncated=truncated(reason))

    def _call(self, task: Task, images: tuple[bytes, ...], seed: int) -> api.Call:
        settings = self._settings
        variable = keys.key_env(settings.api_key_env, settings.url)
        key = keys.required_key(variable, NAME) if variable else ""
        chat = conversation(task, len(images), system_prompt=settings.system_prompt)
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": _with_pictures(
                chat, [jpeg_uri(image, settings.max_image_pixels) for image in images]
            ),
            "stream": True,
            "temperature": settings.temperature,
            settings.max_tokens_field: settings.max_tokens,
            "seed": seed % 2**31,
        }
        if settings.enable_thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": settings.enable_thinking}
        return api.Call(
            provider=NAME,
            method="POST",
            url=f"{settings.url}/chat/completions",
            deadline=time.time() + settings.timeout_s,
            body=body,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            key=key,
        )


def _with_pictures(chat: list[dict], uris: list[str]) -> list[dict]:
    """The chat with a data URI in the place of each `{type: image}`."""
    left = iter(uris)

    def piece(part: dict) -> dict:
        return {"type": "image_url", "image_url": {"url": next(left)}} if part["type"] == "image" else part

    return [
        turn
        if isinstance(turn["content"], str)
        else {"role": turn["role"], "content": [piece(part) for part in turn["content"]]}
        for turn in chat
    ]


async def _open(session: aiohttp.ClientSession, call: api.Call) -> aiohttp.ClientResponse:
    """The response after its header is read and checked; the caller closes it. Raises as `api.send`."""
    try:
        async with asyncio.timeout(call.deadline - time.time()):
            response = await session.request(
                call.method,
                call.url,
                json=call.body,
                headers={**call.headers, "Accept": "text/event-stream"},
                proxy=await proxy_of(call.url),
                allow_redirects=False,
            )
            try:
                if response.status == 200 and response.content_type == "text/event-stream":
                    return response
                body = await read_bounded(response, MAX_ERROR_BYTES)
            except BaseException:  # also a cancellation must not leave the connection open
                response.close()
                raise
    except TimeoutError as error:
        raise InfrastructureFault(Cause.TIMEOUT, "no answer in time", provider=NAME) from error
    except aiohttp.InvalidURL as error:
        raise InfrastructureFault(Cause.BAD_ANSWER, "its base URL is not a URL", provider=NAME) from error
    except (aiohttp.ClientError, OSError) as error:
        detail = f"cannot be reached: {type(error).__name__}"
        raise api.TransientFault(Cause.PROVIDER_DOWN, detail, provider=NAME) from None
    if response.status == 200:
        detail = f"the answer is no event stream, but {response.content_type}"
        raise InfrastructureFault(Cause.BAD_ANSWER, detail, provider=NAME)
    raise author_failure(api.failure(call, response.status, response.headers, body))


async def _read(response: aiohttp.ClientResponse, deadline: float) -> bytes:
    """The next bytes; b"" at the end."""
    try:
        async with asyncio.timeout(deadline - time.time()):
            return await response.content.readany()
    except TimeoutError as error:
        raise InfrastructureFault(Cause.TIMEOUT, "the text took too long", provider=NAME) from error
    except (aiohttp.ClientError, OSError) as error:
        detail = f"the connection broke in the middle of the text: {type(error).__name__}"
        raise InfrastructureFault(Cause.PROVIDER_DOWN, detail, provider=NAME) from None
