"""The served judges against a local server that answers as the OpenAI API does, errors included."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rewards_documents import F, I, P, X, document

from policy.document import Document
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.fence import DOCUMENT_OVER
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.prompts import FAILURES_ELSEWHERE, FAILURES_LOWER, image_rubric, text_chat, text_rubric
from rewards.settings import JudgeSettings, check
from workers import jobs
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Request, Success
from workers.storage.blobs import BlobStore

KEY = "sk-very-secret"


@dataclass
class Server:
    """A chat endpoint. It answers with `status`, `headers` and `body`; `seen`: the requests."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    delay_s: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)

    def says(self, content: str | None, finish: str = "stop") -> None:
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        self.body = json.dumps({"object": "chat.completion", "model": "served-judge", "choices": [choice]})


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.paths.append(self.path)
            state.authorization.append(self.headers.get("Authorization"))
            state.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.over.wait(state.delay_s)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the judge gave up waiting
                self.wfile.write(state.body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield state
        state.over.set()
        http.shutdown()
        thread.join()


Configure = Callable[..., None]


@pytest.fixture
def configure(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes the section "judges" with both judges on the server; keywords change both."""

    def write(**changes: object) -> None:
        judge = {"provider": "openai", "base_url": server.url, "model": "judge", **changes}
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"judges": {"text": judge, "image": judge}}))
        monkeypatch.setenv("LLMI_CONFIG", str(path))

    for variable in ("LLM_JUDGE_BASE_URL", "MLLM_JUDGE_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    return write


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def read(store: BlobStore, doc: Document, timeout_s: float = 20) -> Success | Failure:
    request = Request.make(TEXT_KIND, JudgeTextPayload.of(doc), timeout_s=timeout_s)
    return jobs.run(request, store).result


def look(store: BlobStore, doc: Document, *, failures_lower: bool = False) -> Success | Failure:
    payload = JudgeImagePayload.of(doc, failures_lower=failures_lower)
    return jobs.run(Request.make(IMAGE_KIND, payload, timeout_s=20), store).result


def cause(result: Success | Failure) -> Cause:
    assert isinstance(result, Failure), result
    return result.cause


def picture(store: BlobStore, size: tuple[int, int], mode: str = "RGB", kind: str = "PNG") -> BlobRef:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return store.put(buffer.getvalue())


def test_a_judge_that_the_request_does_not_name_gives_no_verdict(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    doc = document(P("x"), I(blob=picture(store, (64, 64))))
    for kind, payload in (
        (TEXT_KIND, JudgeTextPayload.of(doc, judge="rules")),
        (IMAGE_KIND, JudgeImagePayload.of(doc, judge="rules")),
    ):
        result = jobs.run(Request.make(kind, payload, timeout_s=20), store).result
        assert cause(result) is Cause.BAD_MESSAGE
        assert "this worker's configuration names 'judge'" in result.detail  # type: ignore[union-attr]
    assert server.seen == []


def test_the_text_judges_verdict_names_its_model(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    server.says('{"text": 4, "image_tags": 2}')
    result = read(store, document(P("A heron."), I(), X()))
    assert isinstance(result, Success)
    assert result.verdict == {"text": 4, "image_tags": 2}
    assert result.source == {"judge": "openai", "model": "served-judge"}
    assert server.paths == ["/v1/chat/completions"]


def test_every_axis_is_bound_to_1_to_5_by_schema(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure(temperature=0.5, enable_thinking=False)
    server.says('{"text": 4, "image_tags": 2}')
    read(store, document(P("A heron.")))
    body = server.seen[0]
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["text", "image_tags"]
    assert [axis["enum"] for axis in schema["properties"].values()] == [[1, 2, 3, 4, 5]] * 2
    assert body["temperature"] == 0.5
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking" not in body


def test_the_rubric_opens_the_prompt_and_siblings_share_all_but_the_document(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    server.says('{"text": 4, "image_tags": 2}')
    for prose in ("One.", "Two."):
        read(store, document(P(prose), I("search", "heron"), X(), tools=("search",)))
    first, second = (body["messages"] for body in server.seen)
    assert first[0] == second[0] == {"role": "system", "content": text_rubric()}
    head, tail = first[1]["content"].split("One.")
    shared = head[: head.rindex("⟦")]
    assert second[1]["content"].startswith(shared)
    assert "grey heron and its nest" in shared
    assert ' tag by search⟧\nheron | {"query": "heron"}\n⟦' in tail
    assert " broken tag⟧" in tail
    assert "not a dictionary" in tail


def test_the_same_document_gives_the_same_prompt() -> None:
    one, two = (JudgeTextPayload.of(document(P("One."), rollout_id=name)) for name in ("r1", "r2"))
    assert text_chat(one) == text_chat(two)


def test_the_image_judge_sees_given_and_made_pictures_in_order(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    server.says('{"image_quality": 5, "task_relevance": 4, "text_image_relevance": 3}')
    given, made = picture(store, (40, 30)), picture(store, (20, 20), "RGBA")
    doc = document(
        P("First."), I("code", "chart", blob=made), F("search", says="a lost heron"), inputs=(given,)
    )
    result = look(store, doc)
    assert isinstance(result, Success)
    assert result.verdict == {"image_quality": 5, "task_relevance": 4, "text_image_relevance": 3}
    system, user = server.seen[0]["messages"]
    assert system["content"] == [{"type": "text", "text": image_rubric()}]
    kinds = [part["type"] if part["type"] == "image_url" else part["text"] for part in user["content"]]
    task, written = (kinds[place].split()[0].strip("⟦") for place in (0, 3))
    assert kinds == [
        f"⟦{task} task⟧\nTell me about the grey heron and its nest.\n⟦{task} given picture 1⟧\n",
        "image_url",
        f"⟦{task} task ends⟧\n",
        f"⟦{written} document⟧\nFirst.\n⟦{written} picture 1, by code, meant to show⟧\nchart\n"
        f"⟦{written} picture 1 itself⟧\n",
        "image_url",
        f"⟦{written} no picture could be made here; it was meant to show⟧\na lost heron\n"
        f"⟦{written} no picture⟧\n⟦{written} document ends⟧\n",
        DOCUMENT_OVER,
        f"{FAILURES_ELSEWHERE}\n\n# Your grades",
    ]
    assert [shown(part).size for part in user["content"] if part["type"] == "image_url"] == [
        (40, 30),
        (20, 20),
    ]


def shown(part: dict[str, Any]) -> Image.Image:
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def images_of(server: Server) -> list[Image.Image]:
    parts = server.seen[-1]["messages"][1]["content"]
    return [shown(part) for part in parts if part["type"] == "image_url"]


def test_failures_lower_grades_when_the_formula_says_so(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    server.says('{"image_quality": 5, "task_relevance": 4, "text_image_relevance": 3}')
    look(store, document(I(blob=picture(store, (20, 20))), F()), failures_lower=True)
    texts = [part.get("text") for part in server.seen[0]["messages"][1]["content"]]
    assert f"{FAILURES_LOWER}\n\n# Your grades" in texts


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_large_pictures_are_scaled_down_here(
    server: Server, configure: Configure, store: BlobStore, kind: str
) -> None:
    configure(max_image_pixels=20_000)
    server.says('{"image_quality": 5, "task_relevance": 4, "text_image_relevance": 3}')
    look(store, document(I(blob=picture(store, (400, 200), kind=kind))))
    assert [image.size for image in images_of(server)] == [(200, 100)]


def test_given_pictures_make_room_for_those_of_the_document(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure(max_images=2)
    server.says('{"image_quality": 5, "task_relevance": 4, "text_image_relevance": 3}')
    given = tuple(picture(store, (10 + n, 10)) for n in range(3))
    look(store, document(I(blob=picture(store, (30, 10))), inputs=given))
    assert [image.width for image in images_of(server)] == [10, 30]
    texts = [part.get("text") for part in server.seen[0]["messages"][1]["content"]]
    assert "2 more given picture(s), not shown⟧" in str(texts)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (401, {}, Cause.AUTH),
        (403, {}, Cause.AUTH),
        (404, {}, Cause.BAD_ANSWER),
        (429, {"Retry-After": "60"}, Cause.QUOTA),
        (503, {"Retry-After": "60"}, Cause.PROVIDER_DOWN),
    ],
)
def test_error_answers_are_typed_and_never_masked_as_a_score(
    server: Server,
    configure: Configure,
    store: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    expected: Cause,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    configure(api_key_env="JUDGE_KEY")
    server.status, server.headers = status, headers
    server.body = json.dumps({"error": {"message": f"no, not with {KEY}", "type": "x"}})
    result = read(store, document(P("A heron.")))
    assert cause(result) is expected
    assert KEY not in result.model_dump_json()
    assert set(server.authorization) == {f"Bearer {KEY}"}


def test_a_key_of_a_service_is_not_sent_to_a_judge_of_ones_own(
    server: Server, configure: Configure, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ARK_API_KEY"):
        monkeypatch.setenv(name, KEY)
    configure()
    server.says('{"text": 4, "image_tags": 2}')
    assert isinstance(read(store, document(P("A heron."))), Success)
    assert KEY not in str(server.authorization)


def test_a_busy_server_is_retried(server: Server, configure: Configure, store: BlobStore) -> None:
    configure()
    server.status, server.headers = 429, {"Retry-After": "0"}
    timer = threading.Timer(0.2, lambda: setattr(server, "status", 200))
    timer.start()
    server.says('{"text": 4, "image_tags": 2}')
    assert isinstance(read(store, document(P("A heron."))), Success)
    assert len(server.seen) > 1
    timer.join()


def test_a_slow_server_ends_at_the_requests_deadline(
    server: Server, configure: Configure, store: BlobStore
) -> None:
    configure()
    server.delay_s = 1.5
    assert cause(read(store, document(P("A heron.")), timeout_s=0.3)) is Cause.TIMEOUT


def test_a_refused_connection_is_provider_down(configure: Configure, store: BlobStore) -> None:
    configure(base_url="http://127.0.0.1:9/v1")
    assert cause(read(store, document(P("A heron.")), timeout_s=0.5)) is Cause.PROVIDER_DOWN


@pytest.mark.parametrize(
    "content",
    [
        '{"text": 50, "image_tags": 3}',
        '{"text": 0, "image_tags": 3}',
        '{"text": 4.5, "image_tags": 3}',
        '{"text": "4", "image_tags": 3}',
        '{"text": true, "image_tags": 3}',
        '{"text": 4}',
        '{"text": 4, "image_tags": 3, "bonus": 5}',
        "Text: 4",
        "",
        None,
        "[4, 3]",
    ],
)
def test_an_unreadable_verdict_is_refused_never_used(
    server: Server, configure: Configure, store: BlobStore, content: str | None
) -> None:
    configure()
    server.says(content)
    assert cause(read(store, document(P("A heron.")))) is Cause.VERDICT_UNREADABLE


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}']
)
def test_an_answer_of_another_shape_is_a_bad_answer(
    server: Server, configure: Configure, store: BlobStore, body: str
) -> None:
    configure()
    server.body = body
    assert cause(read(store, document(P("A heron.")))) is Cause.BAD_ANSWER


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_environment_names_the_endpoint(
    server: Server, configure: Configure, store: BlobStore, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    configure(base_url="http://127.0.0.1:9/v1")
    monkeypatch.setenv("LLM_JUDGE_BASE_URL", server.url.removesuffix("/v1") + suffix)
    server.says('{"text": 4, "image_tags": 2}')
    assert isinstance(read(store, document(P("A heron."))), Success)
    assert server.paths == ["/v1/chat/completions"]


def test_preflight_names_what_is_missing_and_gives_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LLM_JUDGE_BASE_URL", "MLLM_JUDGE_BASE_URL", "JUDGE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    assert check(JudgeSettings()) == []
    served = JudgeSettings.model_validate(
        {
            "text": {"provider": "openai", "api_key_env": "JUDGE_KEY"},
            "image": {"provider": "openai", "model": ""},
        }
    )
    problems = "\n".join(check(served))
    for name in (
        "judges.text.base_url",
        "LLM_JUDGE_BASE_URL",
        "JUDGE_KEY",
        "MLLM_JUDGE_BASE_URL",
        "judges.image.model",
    ):
        assert name in problems
    monkeypatch.setenv("LLM_JUDGE_BASE_URL", "http://judge:8000/v1")
    monkeypatch.setenv("MLLM_JUDGE_BASE_URL", "judge:8000")
    monkeypatch.setenv("JUDGE_KEY", "x")
    assert check(served) == [
        "judges.image.base_url (or environment variable MLLM_JUDGE_BASE_URL) is not an http(s) URL; "
        + "set it to one such as http://host:8000/v1",
        "judges.image.model is empty; set it to the name under which the endpoint serves the model",
    ]


@pytest.mark.parametrize("url", ["http://me:secret@judge/v1", "judge:8000", "ftp://judge"])
def test_a_base_url_with_a_password_or_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        JudgeSettings.model_validate({"text": {"base_url": url}})
