"""Both judges against real vLLM servers on the CPU, with tiny random weights.

Whatever such a model would like to say, a verdict comes back that parses.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from policy.document import Document, ImagePart, Tag, Task, TextPart
from policy.tiny.build import build_policy
from policy.tiny.recipe import Kind, Recipe
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.verdicts import ImageVerdict, TextVerdict
from workers import jobs
from workers.blobs import BlobStore
from workers.messages import BlobRef, Outcome, Request, Success

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

START_S = 240.0
STOP_S = 20.0
UNTAUGHT = Recipe(documents=64, steps=1)
MODEL = "tiny-judge"
STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
SMALL_SERVER = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    root: str
    log: Path


@contextlib.contextmanager
def serve(kind: Kind, folder: Path) -> Iterator[Server]:
    """A vLLM server with a tiny model of `kind`, being started."""
    model = build_policy(kind, folder, seed=0, recipe=UNTAUGHT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "8"]
    command += ["--structured-outputs-config", json.dumps(STRUCTURED)]
    log = folder / f"{kind}.log"
    environment = {**os.environ, **SMALL_SERVER}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        _stop(process)


def wait_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            pytest.fail(f"vLLM ended with {server.process.returncode}:\n{server.log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"{server.root}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"vLLM was not up after {START_S} s:\n{server.log.read_text()[-4000:]}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """The server with its engine process, all in a session of their own."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(STOP_S)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Kind, str]]:
    """Base URLs of both judges, started side by side."""
    folder = tmp_path_factory.mktemp("judges")
    with serve("text", folder) as text, serve("vl", folder) as image:
        for server in (text, image):
            wait_healthy(server)
        yield {"text": f"{text.root}/v1", "vl": f"{image.root}/v1"}


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture(autouse=True)
def _config(endpoints: dict[Kind, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both judges served, and hot, so that they say whatever they are allowed to."""
    judge = {"provider": "openai", "model": MODEL, "temperature": 1.0, "max_image_pixels": 100 * 100}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"judges": {"text": judge, "image": judge}}))
    monkeypatch.setenv("LLMI_CONFIG", str(path))
    monkeypatch.setenv("LLM_JUDGE_BASE_URL", endpoints["text"])
    monkeypatch.setenv("MLLM_JUDGE_BASE_URL", endpoints["vl"])


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
    assert result.source == {"judge": "openai", "model": MODEL}
    assert result.verdict is not None
    return result.verdict


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
