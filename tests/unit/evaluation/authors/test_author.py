"""The author at an endpoint: its request, its stream, and the fault of each failure."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fake_services import Chat, FakeServices, png
from PIL import Image
from waiting import until

from evaluation.authors.author import Finish, check, conversation, make_author
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from policy.document import Task
from policy.grammar.prompts import system_prompt
from workers.errors import Cause, JobError, ModelFault
from workers.providers.http import api

PATH = "/v1/chat/completions"
TASK = Task(question="Write about ferries.")


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    monkeypatch.delenv(AUTHOR_URL_ENV, raising=False)
    with FakeServices() as running:
        yield running


def configured(services: FakeServices, **fields: Any) -> AuthorSettings:
    chosen = {"provider": "openai", "base_url": f"{services.url}/v1", "model": "m", "timeout_s": 20}
    return AuthorSettings.model_validate({**chosen, **fields})


async def written(settings: AuthorSettings, task: Task = TASK, images=(), seed=3) -> tuple[str, Finish]:
    *pieces, ending = [piece async for piece in make_author(settings).write(task, images, seed)]
    assert isinstance(ending, Finish)
    return "".join(pieces), ending


async def failure(settings: AuthorSettings) -> JobError:
    with pytest.raises(JobError) as caught:
        await written(settings)
    return caught.value


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_the_text_does_not_depend_on_the_pieces(services, cut):
    services.chat = Chat(["Fähre ", "⛴ <img", "en>{'sou", "rce'"], cut=cut)
    assert await written(configured(services)) == ("Fähre ⛴ <imgen>{'source'", Finish("served-author"))


async def test_the_request_has_the_configured_options(services):
    await written(configured(services, max_tokens=99, temperature=0.3, enable_thinking=False))
    [seen] = services.calls(PATH)
    assert seen.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": system_prompt()},
            {"role": "user", "content": TASK.question},
        ],
        "stream": True,
        "temperature": 0.3,
        "max_tokens": 99,
        "seed": 3,
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def test_pictures_are_decoded_while_asyncios_own_threads_are_busy(services):
    over = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.create_task(asyncio.to_thread(over.wait, 30))
    await asyncio.sleep(0)  # the only thread is taken
    try:
        async with asyncio.timeout(20):
            await written(configured(services), images=[png()])
    finally:
        over.set()
        await busy


async def test_without_a_system_prompt_the_model_gets_only_the_question(services):
    await written(configured(services, system_prompt=False))
    [seen] = services.calls(PATH)
    assert seen.body["messages"] == [{"role": "user", "content": TASK.question}]


async def test_images_stand_where_the_prompt_has_them_and_are_scaled(services):
    task = Task(question="Compare <image> with this.")
    await written(configured(services, max_image_pixels=28 * 28), task, [png(size=(280, 280))])
    [seen] = services.calls(PATH)
    before, image, after = seen.body["messages"][-1]["content"]
    assert (before["text"], after["text"]) == ("Compare ", " with this.")
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (28, 28)


async def test_the_key_travels_in_the_header_and_in_no_message(services, monkeypatch):
    monkeypatch.setenv("AUTHOR_KEY", "sk-secret")
    services.script[PATH] = [(401, {}, {"error": {"message": "sk-secret is not valid"}})]
    error = await failure(configured(services, api_key_env="AUTHOR_KEY"))
    assert services.calls(PATH)[0].authorization == "Bearer sk-secret"
    assert "sk-secret" not in str(error)


async def test_the_token_limit_truncates(services):
    services.chat = Chat(["Once"], finish="length")
    assert await written(configured(services)) == ("Once", Finish("served-author", truncated=True))


async def test_thoughts_that_the_server_keeps_apart_are_no_text(services):
    thought = '{"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}'
    usage = '{"choices": [], "usage": {"total_tokens": 3}}'
    end = '{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}'
    services.chat = Chat(["A"], finish=None, events=[thought, usage, end])
    assert (await written(configured(services)))[0] == "A"


@pytest.mark.parametrize(
    ("status", "answer", "cause"),
    [
        (401, {}, Cause.AUTH),
        (403, {}, Cause.AUTH),
        (404, {"error": {"message": "no such model"}}, Cause.BAD_ANSWER),
        (400, {"error": {"code": "content_filter", "message": "no"}}, Cause.PROMPT_REFUSED),
        (200, {"choices": [{"message": {"content": "not a stream"}}]}, Cause.BAD_ANSWER),
    ],
)
async def test_an_error_answer_is_typed_and_not_retried(services, status, answer, cause):
    services.script[PATH] = [(status, {}, answer)]
    assert (await failure(configured(services))).cause is cause
    assert len(services.calls(PATH)) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_temporary_failure_is_retried(services, status, monkeypatch):
    monkeypatch.setattr(api, "_JITTER", lambda state: 0.0)
    services.script[PATH] = [(status, {}, {}), (status, {}, {})]
    services.chat = Chat(["A"])
    assert (await written(configured(services)))[0] == "A"
    assert len(services.calls(PATH)) == 3


async def test_retry_after_is_respected_and_ends_at_the_deadline(services):
    services.script[PATH] = [(429, {"Retry-After": "60"}, {})]
    error = await failure(configured(services, timeout_s=5))
    assert (error.cause, error.retry_after_s) == (Cause.QUOTA, 60)
    assert len(services.calls(PATH)) == 1


async def test_a_refused_connection_is_provider_down(services, monkeypatch):
    monkeypatch.setattr(api, "_JITTER", lambda state: 0.0)
    settings = configured(services, base_url="http://127.0.0.1:1/v1")
    assert (await failure(settings)).cause is Cause.PROVIDER_DOWN


@pytest.mark.parametrize(
    ("chat", "cause"),
    [
        (Chat(["half"], finish=None, then="drop"), Cause.PROVIDER_DOWN),
        (Chat(["half"], finish=None), Cause.PROVIDER_DOWN),
        (Chat(["half"], finish="abort"), Cause.PROVIDER_DOWN),
        (Chat(["half"], finish=None, events=['{"error": {"message": "engine died"}}']), Cause.PROVIDER_DOWN),
        (Chat(["half"], finish="content_filter"), Cause.PROMPT_REFUSED),
        (Chat(["half"], finish=None, events=["{nonsense"]), Cause.BAD_ANSWER),
        (Chat(["half"], finish=None, events=['["a list"]']), Cause.BAD_ANSWER),
        (Chat(["half"], finish=None, events=['{"choices": [7]}']), Cause.BAD_ANSWER),
    ],
)
async def test_an_incomplete_text_is_a_failure_and_is_not_retried(services, chat, cause):
    services.chat = chat
    error = await failure(configured(services))
    assert error.cause is cause
    assert isinstance(error, ModelFault) == (cause is Cause.PROMPT_REFUSED)
    assert len(services.calls(PATH)) == 1


async def test_a_server_that_falls_silent_is_left_at_the_deadline(services):
    services.chat = Chat(["half"], finish=None, then="stall")
    assert (await failure(configured(services, timeout_s=0.5))).cause is Cause.TIMEOUT


async def test_closing_the_text_hangs_up(services):
    services.chat = Chat(["half"], finish=None, then="stall")
    text = make_author(configured(services)).write(TASK, (), 0)
    assert await anext(text) == "half"
    await text.aclose()
    await until(lambda: services.gone)


def test_a_complete_endpoint_has_no_problem(services):
    assert check(configured(services)) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"provider": "openai", "model": "m"}, AUTHOR_URL_ENV),
        ({"provider": "openai", "base_url": "http://h/v1"}, "author.model"),
        ({"provider": "openai", "base_url": "http://h/v1", "model": "m", "api_key_env": "NO_KEY"}, "NO_KEY"),
        ({"provider": "local"}, "author.model"),
        ({"provider": "local", "model": "./nowhere"}, "config.json"),
    ],
)
def test_a_missing_variable_is_named(fields, named, monkeypatch):
    monkeypatch.delenv(AUTHOR_URL_ENV, raising=False)
    monkeypatch.delenv("NO_KEY", raising=False)
    [problem] = check(AuthorSettings.model_validate(fields))
    assert named in problem


def test_an_address_in_the_environment_must_be_one(monkeypatch):
    monkeypatch.setenv(AUTHOR_URL_ENV, "host:8000")
    [problem] = check(AuthorSettings(provider="openai", model="m"))
    assert AUTHOR_URL_ENV in problem


def test_a_hub_id_is_left_to_the_hub():
    assert check(AuthorSettings(provider="local", model="Qwen/Qwen3-4B-Instruct-2507")) == []


def test_images_without_a_place_lead_the_question():
    [turn] = conversation(Task(question="What is this?"), 1, system_prompt=False)
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": "What is this?"}]
