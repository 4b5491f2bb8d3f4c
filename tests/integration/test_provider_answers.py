"""Whatever a service answers in place of what its documentation says, a job ends in a typed failure or in
what it was asked for, and no detail holds a key.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzz
import provider_calls
import pytest
from fake_services import KEY, Chat, FakeServices, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.authors.author import Finish
from evaluation.authors.openai import OpenAIAuthor
from evaluation.payloads import RubricPayload
from evaluation.rubric import openai as rubric_openai
from evaluation.settings import AuthorSettings, RubricSettings
from policy.document import Task
from rewards.judges.openai import verdict_of
from rewards.settings import JudgeEndpoint
from rewards.verdicts import TextVerdict
from workers.errors import JobError
from workers.jobs import JobContext
from workers.messages import Failure, Outcome, Request, Success
from workers.providers.http import api
from workers.settings import ImageModelSettings, SearchSettings
from workers.storage.blobs import BlobStore

SECONDS = 20.0
HERE = "http://services.example"  # stands for the address of the services in what they answer
PICTURE = base64.b64encode(png()).decode()
SAID = f"Incorrect API key provided: {KEY}"
DATES = [f"Mon, 01 Jan {year} 00:00:00 GMT" for year in (2026, 10**14)]
WAITS = ["1", "-1", "nan", "inf", "1e999", "soon", *DATES]
EXAMPLES = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])

Answer = tuple[int, dict[str, str], str]


@pytest.fixture(scope="module")
def services() -> Iterator[FakeServices]:
    with FakeServices() as running:
        yield running


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is in the environment, and what may pass is not tried again: that takes seconds."""
    for name in ("SERP_API_KEY", "IMAGES_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(api, "MAX_TRIES", 1)


def answers(*documented: Any, said: str = SAID) -> st.SearchStrategy[Answer]:
    """Status, headers and body of an answer that is not, or only nearly, what is documented. `said`: words
    that it often holds.
    """
    error = {"code": "content_policy_violation", "type": "x", "message": said}
    near = [fuzz.nearly(one, said) for one in (*documented, *documented, {"error": error}, {"error": said})]
    body = st.one_of(*near, fuzz.json_values(said)).map(fuzz.as_text) | st.text(max_size=30)
    status = st.sampled_from([200] * 8 + [201, 204, 302, 400, 401, 403, 404, 408, 429, 500, 503])
    return st.tuples(status, st.sampled_from([{}, *({"Retry-After": wait} for wait in WAITS)]), body)


def script(services: FakeServices, path: str, answer: Answer) -> None:
    status, headers, body = answer
    services.script[path] = [(status, headers, body.replace(HERE, services.url))]


def ended(ask: Callable[[], Any]) -> Any:
    """The result, or None for a typed failure. Checks that neither contains the key."""
    given, words = None, ""
    result: Success | Failure
    try:
        given = ask()
    except JobError as error:
        result, words = Failure.of(error), f"{error} {error.detail}"
    else:
        result = given if isinstance(given, Success) else Success(source=given.source)
    assert KEY not in words
    received = Outcome(request_id="r", kind="code", result=result).model_dump_json()
    assert KEY not in received
    assert Outcome.model_validate_json(received).result == result
    return given


def is_picture(made: Any) -> None:
    if made is not None:
        assert made.image.startswith((b"\x89PNG", b"\xff\xd8"))


FOUND = {"position": 1, "title": f"A fox, {SAID}", "link": f"https://e.org/{KEY}"}
RESULTS = [{**FOUND, "original": f"{HERE}/picture.png"}, {**FOUND, "thumbnail": "http://[::1"}]


@EXAMPLES
@given(answers({"search_metadata": {"status": "Success"}, "images_results": RESULTS}))
def test_serpapi(services: FakeServices, answer: Answer) -> None:
    script(services, "/search", answer)
    chosen = SearchSettings.model_validate(
        {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True}
    )
    is_picture(ended(lambda: provider_calls.search("a fox", chosen, deadline=time.time() + SECONDS)))


@EXAMPLES
@given(
    answers(
        {"data": [{"b64_json": PICTURE}]},
        {"data": [{"url": f"{HERE}/picture.png"}]},
        {"data": [{"error": {"code": "moderation", "message": SAID}}]},
    )
)
def test_an_images_endpoint(services: FakeServices, answer: Answer) -> None:
    script(services, "/v1/images/generations", answer)
    chosen = ImageModelSettings.model_validate(
        {
            "provider": "openai",
            "base_url": f"{services.url}/v1",
            "model": "m",
            "api_key_env": "IMAGES_KEY",
            "allow_private_addresses": True,
        }
    )
    is_picture(
        ended(lambda: provider_calls.generate("a fox", chosen, seed=1, deadline=time.time() + SECONDS))
    )


@EXAMPLES
@given(answers({"status": "success", "images": [PICTURE]}, said="it knows no key"))
def test_a_server_of_the_originals_shape(services: FakeServices, answer: Answer) -> None:
    script(services, "/edit/", answer)
    chosen = ImageModelSettings.model_validate({"provider": "qwen_server", "base_url": services.url})
    picture = Image.new("RGB", (16, 16))
    deadline = time.time() + SECONDS
    is_picture(ended(lambda: provider_calls.edit("at night", picture, chosen, seed=1, deadline=deadline)))


def chat(verdict: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": verdict}
    return {"model": "judge", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def verdicts(documented: Any) -> st.SearchStrategy[Answer]:
    """Answers around a verdict, and whole answers whose verdict is only nearly one."""
    said = fuzz.nearly(documented, SAID).map(fuzz.as_text) | fuzz.json_values(SAID)
    whole = said.map(lambda one: (200, {}, fuzz.as_text(chat(one))))
    return whole | answers(chat(json.dumps(documented)))


def context(folder: Path) -> JobContext:
    request = Request(request_id="r", kind="judge_text", payload={}, deadline=time.time() + SECONDS)
    return JobContext(request, BlobStore(str(folder)))


@EXAMPLES
@given(verdicts({"text": 5, "image_tags": 4}))
def test_a_judge(services: FakeServices, tmp_path: Path, answer: Answer) -> None:
    script(services, "/v1/chat/completions", answer)
    given = ended(judge(services, tmp_path))
    if given is not None:
        assert set(given.verdict) == {"text", "image_tags"}
        assert all(1 <= grade <= 5 for grade in given.verdict.values())


@EXAMPLES
@given(verdicts({"reason": SAID, "score": 1}))
def test_a_judge_of_criteria(services: FakeServices, tmp_path: Path, answer: Answer) -> None:
    script(services, "/v1/chat/completions", answer)
    chosen = RubricSettings(
        provider="openai", base_url=f"{services.url}/v1", model="j", api_key_env="IMAGES_KEY"
    )
    payload = RubricPayload(question="Why?", parts=(), criterion="It says why.", judge="j")
    given = ended(lambda: rubric_openai.judge(payload, chosen, context(tmp_path)))
    if given is not None:
        assert given.verdict["score"] in (0, 1, 2)


CHUNK = {"model": SAID, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
EVENTS = fuzz.nearly(CHUNK, SAID) | fuzz.nearly({"error": {"message": SAID, "code": "safety"}}, SAID)


@EXAMPLES
@given(st.lists(EVENTS.map(fuzz.as_text), max_size=4), st.sampled_from([None, "stop"]))
async def test_an_author(services: FakeServices, events: list[str], finish: str | None) -> None:
    services.chat = Chat(["He", "llo"], finish=finish, events=events)
    author = OpenAIAuthor(
        AuthorSettings(provider="openai", base_url=f"{services.url}/v1", model="m", api_key_env="IMAGES_KEY")
    )
    pieces: list[Any] = []
    try:
        async for piece in author.write(Task(question="Why?"), (), seed=1):
            pieces.append(piece)
    except JobError as error:
        pieces.append(Finish(f"{error} {error.detail}"))
    *texts, ending = pieces
    assert all(isinstance(text, str) for text in texts)
    assert KEY not in ending.model


# What was found, one by one.


def failed(ask: Callable[[], Any]) -> str:
    """The failure's cause and detail, without half of the key either."""
    with pytest.raises(JobError) as caught:
        ask()
    assert KEY[:10] not in caught.value.detail
    return f"{caught.value.cause}: {caught.value.detail}"


def search(services: FakeServices) -> Callable[[], Any]:
    chosen = SearchSettings.model_validate({"provider": "serpapi", "base_url": services.url})
    return lambda: provider_calls.search("a fox", chosen, deadline=time.time() + SECONDS)


def paint(services: FakeServices) -> Callable[[], Any]:
    url = f"{services.url}/v1"
    chosen = ImageModelSettings(provider="openai", base_url=url, model="m", api_key_env="IMAGES_KEY")
    return lambda: provider_calls.generate("a fox", chosen, seed=1, deadline=time.time() + SECONDS)


def judge(services: FakeServices, folder: Path) -> Callable[[], Any]:
    chosen = JudgeEndpoint(provider="openai", model="j", api_key_env="IMAGES_KEY")
    return lambda: verdict_of(chosen, f"{services.url}/v1", [], TextVerdict, context(folder), "text judge")


@pytest.mark.parametrize(
    "answer",
    [
        {"error": f"Your searches for the month are exhausted. /search?api_key={KEY}"},
        {"error": "x" * 290 + KEY},
        {"error": {"message": KEY}},
        {"images_results": [{"original": 7, KEY: 1}]},
    ],
)
def test_an_error_with_status_200_repeats_no_key(answer: Any, services: FakeServices) -> None:
    script(services, "/search", (200, {}, json.dumps(answer)))
    assert failed(search(services)).startswith("bad_answer")


@pytest.mark.parametrize("status", [200, 400])
def test_a_refused_prompt_repeats_no_key(status: int, services: FakeServices) -> None:
    error = {"error": {"code": "moderation_blocked", "message": "x" * 290 + KEY}}
    answer = {"data": [error]} if status == 200 else error
    script(services, "/v1/images/generations", (status, {}, json.dumps(answer)))
    assert failed(paint(services)).startswith("prompt_refused: xxx")


@pytest.mark.parametrize("said", [f"not JSON: {KEY}", json.dumps({KEY: 1, "text": 5, "image_tags": 5})])
def test_an_unreadable_verdict_shows_no_key(said: str, services: FakeServices, tmp_path: Path) -> None:
    script(services, "/v1/chat/completions", (200, {}, json.dumps(chat(said))))
    assert failed(judge(services, tmp_path)).startswith("verdict_unreadable")


def test_json_nested_too_deep_is_no_answer_and_no_verdict(services: FakeServices, tmp_path: Path) -> None:
    deep = "[" * 50_000
    script(services, "/search", (200, {}, f'{{"images_results": {deep}'))
    assert failed(search(services)) == "bad_answer: the answer is not a JSON object"
    script(services, "/v1/chat/completions", (200, {}, json.dumps(chat(deep))))
    assert failed(judge(services, tmp_path)).startswith("verdict_unreadable")


def test_a_date_out_of_all_time_is_no_date(services: FakeServices) -> None:
    script(services, "/search", (429, {"Retry-After": DATES[1]}, "{}"))
    assert failed(search(services)) == "quota: HTTP 429: {}"


def test_half_a_character_becomes_a_replacement_character(services: FakeServices) -> None:
    found = {"title": "a fox \ud83d", "original": f"{HERE}/picture.png"}
    script(services, "/search", (200, {}, json.dumps({"images_results": [found]})))
    chosen = {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True}
    made = provider_calls.search(
        "a fox", SearchSettings.model_validate(chosen), deadline=time.time() + SECONDS
    )
    received = Outcome(request_id="r", kind="search", result=Success(source=made.source)).model_dump_json()
    assert "a fox \ufffd" in received
