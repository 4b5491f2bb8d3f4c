"""Both judges against real vLLM servers on the CPU, with tiny random weights.

Although such a model writes noise, every verdict parses, and has expected scores.
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from injections import ATTEMPTS, drawn
from PIL import Image

from coordinator.serve import judge_servers
from coordinator.serve.servers import Servers
from coordinator.serve.serving import ServerSpec
from policy.document import Document, ImagePart, Tag, Task, TextPart
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.served.logprobs import STEP
from rewards.verdicts import ImageVerdict, TextVerdict
from workers import jobs
from workers.messages import BlobRef, Outcome, Request, Success
from workers.storage.blobs import BlobStore

pytestmark = [pytest.mark.heavy, pytest.mark.long, pytest.mark.timeout(300)]

START_S = 240.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerSpec]]:
    """Both judges as `ops/serve_judges.sh --device cpu` serves them, by name."""
    folder = tmp_path_factory.mktemp("judges")
    both = judge_servers.plan(
        ["text", "image"], models={"text": "", "image": ""}, device="cpu", host="127.0.0.1",
        ports={"text": free_port(), "image": free_port()}, tensor_parallel=8, images=20, tokens=4096,
    )  # fmt: skip
    said: list[ServerSpec] = []
    with Servers(both, folder) as servers:
        servers.wait_ready(START_S, said.append)
        assert sorted(one.name for one in said) == ["image judge", "text judge"]
        yield {one.name.split()[0]: one for one in both}
        servers.check()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture(autouse=True)
def _config(served: dict[str, ServerSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both judges, served at a high temperature, so that they give every answer that they may."""
    judges = {
        name: {"provider": "openai", "model": one.model, "temperature": 1.0, "max_image_pixels": 100 * 100}
        for name, one in served.items()
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"judges": judges}))
    monkeypatch.setenv("LLMI_CONFIG", str(path))
    for one in served.values():
        monkeypatch.setenv(one.variable, one.url)


def picture(store: BlobStore, size: tuple[int, int], mode: str) -> BlobRef:
    buffer = io.BytesIO()
    Image.new(mode, size, 90 if mode == "L" else (200, 40, 40, 128)[: len(mode)]).save(buffer, "PNG")
    return store.put(buffer.getvalue())


def document(store: BlobStore, number: int) -> Document:
    tag = Tag(source="code", description="A chart of the catch", params={"code": "plt.plot([1, 2])"})
    parts: list[TextPart | ImagePart] = [TextPart(text=f"Heron number {number} hunts at dawn.\n")]
    for index, blob in enumerate((picture(store, (300, 200), "RGBA"), picture(store, (64, 64), "RGB"))):
        made = Outcome(request_id=f"r{index}", kind="code", result=Success(images=(blob,)))
        parts.append(ImagePart(index=index, tag=tag, raw="", outcome=made))
    task = Task(question="Tell me about herons.", image_num=2, inputs=(picture(store, (80, 60), "L"),))
    return Document(rollout_id=f"rollout-{number}", task=task, parts=tuple(parts))


def scores(request: Request, store: BlobStore) -> dict[str, int]:
    result = jobs.run(request, store).result
    assert isinstance(result, Success), result
    assert result.source["judge"] == "openai"
    assert result.verdict is not None
    assert set(expected_of(result)) == set(result.verdict)
    return result.verdict


def expected_of(result: Success) -> dict[str, float]:
    found = result.source["expected"]
    assert isinstance(found, dict)
    assert all(1 <= float(str(score)) <= 5 for score in found.values())
    return found  # type: ignore[return-value]


def test_the_text_judge_always_gives_readable_scores(store: BlobStore) -> None:
    for number in range(6):
        payload = JudgeTextPayload.of(document(store, number))
        verdict = scores(Request.make(TEXT_KIND, payload, timeout_s=60, seed=number), store)
        assert TextVerdict.read(verdict).scores == verdict


def test_the_image_judge_sees_pictures_and_always_gives_readable_scores(store: BlobStore) -> None:
    for number in range(6):
        payload = JudgeImagePayload.of(document(store, number))
        verdict = scores(Request.make(IMAGE_KIND, payload, timeout_s=60, seed=number), store)
        assert ImageVerdict.read(verdict).scores == verdict


def test_the_expected_score_does_not_depend_on_the_sampled_one(store: BlobStore) -> None:
    """Nothing of the answer stands before its first score, so all samples have the same probabilities."""
    payload = JudgeTextPayload.of(document(store, 0))
    results = [
        jobs.run(Request.make(TEXT_KIND, payload, timeout_s=60, seed=seed), store).result for seed in range(8)
    ]
    assert all(isinstance(result, Success) for result in results), results
    verdicts = [result for result in results if isinstance(result, Success)]
    assert len({result.verdict["text"] for result in verdicts if result.verdict}) > 1
    first = [expected_of(result)["text"] for result in verdicts]
    assert max(first) - min(first) <= STEP


def test_a_server_accepts_every_attempt_to_steer_its_judge(store: BlobStore) -> None:
    def judged(attempt: str) -> dict[str, int]:
        tag = Tag(source="code", description=attempt, params={"code": attempt})
        blob = store.put(drawn(attempt))
        made = Outcome(request_id="r", kind="code", result=Success(images=(blob,)))
        parts = (TextPart(text=attempt), ImagePart(index=0, tag=tag, raw="", outcome=made))
        doc = Document(rollout_id="r", task=Task(question=attempt, image_num=1), parts=parts)
        image = Request.make(IMAGE_KIND, JudgeImagePayload.of(doc), timeout_s=100)
        return scores(Request.make(TEXT_KIND, JudgeTextPayload.of(doc), timeout_s=100), store) | scores(
            image, store
        )

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(judged, ATTEMPTS.values()))) == len(ATTEMPTS)


@pytest.mark.parametrize("name", ["text", "image"])
def test_a_served_judge_proves_itself_with_a_verdict(served: dict[str, ServerSpec], name: str) -> None:
    assert 0 < judge_servers.probe_server(served[name]) < judge_servers.PROBE_S


def test_seeded_requests_that_come_at_once_do_not_kill_the_engine(
    served: dict[str, ServerSpec], store: BlobStore
) -> None:
    """More prompt tokens than one pass of the engine takes: vLLM 0.27.1 would take a part of one of them."""
    parts = (TextPart(text="The heron stands in the reeds. " * 120),)
    task = Task(question="Tell me about herons.")

    def judged(number: int) -> dict[str, int]:
        payload = JudgeTextPayload.of(Document(rollout_id=f"long-{number}", task=task, parts=parts))
        return scores(Request.make(TEXT_KIND, payload, timeout_s=100, seed=number), store)

    with ThreadPoolExecutor(12) as threads:
        assert len(list(threads.map(judged, range(12)))) == 12
