"""One document from the command line to its page: a real Redis, real workers, an author at an endpoint."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import redis
import yaml
from fake_services import Chat, FakeServices, png
from PIL import Image

from coordinator.state.claim import CONFIG_KEY
from evaluation.authors.author import make_author
from evaluation.batch.authoring import write_document
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from llmi.demo.library import build_library
from policy.document import Task
from workers.client.client import QueueClient
from workers.settings import CONFIG_ENV, REDIS_ENV, ToolSettings
from workers.storage.blobs import BlobStore

pytestmark = pytest.mark.long

LLMI = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
LIMIT_S = 100


def tag(source: str, **params: object) -> str:
    return f"<imgen>{ {'source': source, 'description': f'by {source}', 'params': params} }</imgen>\n"


TEXT = (
    "# Kyoto\nA pagoda.\n"
    + tag("search", query="pagoda in Kyoto")
    + tag("code", code="plt.plot([1, 3, 2])")
    + tag("edit", img_index=0, prompt="at dusk")
    + tag("search", query="xylophone")
    + "The end."
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("pictures") / "library")


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    for name in (AUTHOR_URL_ENV, REDIS_ENV, CONFIG_ENV, "ARK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with FakeServices() as running:
        running.chat = Chat([TEXT[at : at + 9] for at in range(0, len(TEXT), 9)])
        yield running


def sections(services: FakeServices, library: Path) -> dict[str, object]:
    model = {"provider": "openai", "base_url": f"{services.url}/v1", "model": "pictures"}
    return {
        "author": {"provider": "openai", "base_url": f"{services.url}/v1", "model": "m", "timeout_s": 60},
        "tools": {
            "search": {"provider": "library", "library": str(library)},
            "diffusion": model,
            "edit": model,
        },
    }


@pytest.fixture
def config(tmp_path: Path, services: FakeServices, library: Path) -> Path:
    path = tmp_path / "services.yaml"
    path.write_text(yaml.safe_dump(sections(services, library)))
    return path


def begin(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = [*LLMI, "generate", "--prompt", "Write about Kyoto.", "--out", "page.html", *arguments]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = begin(folder, arguments)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def left_over(folder: Path) -> list[str]:
    """What the command left behind: files except its page and configuration, and processes in `folder`."""
    files = [path.name for path in folder.iterdir() if path.name not in {"page.html", "services.yaml"}]
    working = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                working.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return files + working


async def test_an_author_at_an_endpoint_writes_through_real_workers(
    services, library, config_file, queue_settings, worker, tmp_path
):
    document = json.loads(config_file.read_text()) | sections(services, library)
    config_file.write_text(json.dumps(document))
    worker(["search"])
    worker(["code"])
    services.chat = Chat([TEXT[: TEXT.index(tag("edit", img_index=0, prompt="at dusk"))]], cut=11)
    async with QueueClient(queue_settings) as client:
        written = await write_document(
            make_author(AuthorSettings.model_validate(document["author"])),
            Task(question="Write about Kyoto."),
            client=client,
            blobs=BlobStore(document["blobs"]["url"]),
            document_id="one",
            tools=ToolSettings(),
            timeout_s=60,
        )
    search, code = written.images
    assert search.blob
    assert "Kyoto" in search.outcome.result.source["title"]
    assert code.blob
    assert code.outcome.result.source["code"] == "plt.plot([1, 3, 2])"


def test_a_prompt_becomes_a_page_and_nothing_else_is_left(tmp_path, services, config):
    code, out, err = run(tmp_path, "--config", str(config), "--seed", "5", "--json")
    assert code == 0, err
    [line] = out.splitlines()
    result = json.loads(line)
    assert (result["title"], result["author"], result["seed"]) == ("Kyoto", "served-author", 5)
    rows = [(row["tool"], row["outcome"], row["fault"]) for row in result["images"]]
    assert rows == [
        ("search", "ok", None),
        ("code", "ok", None),
        ("edit", "ok", None),
        ("search", "no_hit", "model"),
    ]
    assert all(row["seconds"] > 0 for row in result["images"])
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/') == 3
    assert "pagoda" in page
    assert [call.body["seed"] for call in services.calls("/v1/chat/completions")] == [5]
    assert left_over(tmp_path) == []


def test_images_given_reach_author_and_tools_in_their_order(tmp_path, services, config):
    given = {"boat": (200, 30, 30), "barn": (30, 30, 200)}
    for name, colour in given.items():
        (tmp_path / f"{name}.png").write_bytes(png(colour))
    services.chat = Chat([f"Twice.\n{tag('edit', img_index=1, prompt='at night')}", "The end."])
    code, out, err = run(
        tmp_path, "--config", str(config), "--prompt", "A boat <image> and a barn <image>.",
        "--image", "boat.png", "--image", "barn.png", "--json",
    )  # fmt: skip
    assert code == 0, err
    [image] = json.loads(out)["images"]
    assert (image["tool"], image["outcome"]) == ("edit", "ok")
    [asked] = services.calls("/v1/chat/completions")
    parts = asked.body["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    shown = [b64decode(one["image_url"]["url"].partition(",")[2]) for one in parts if "image_url" in one]
    [edited] = [call.form["image"] for call in services.calls("/v1/images/edits")]
    assert [main_colour(picture) for picture in (*shown, edited)] == ["boat", "barn", "barn"]
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/') == 3  # both that were given, and the one that was made
    assert sorted(left_over(tmp_path)) == ["barn.png", "boat.png"]


def main_colour(picture: bytes) -> str:
    """Which of the two images it is. An image may have been converted to JPEG."""
    red, _, blue = Image.open(io.BytesIO(picture)).convert("RGB").getpixel((5, 5))
    return "boat" if red > blue else "barn"


def test_an_author_that_refuses_leaves_no_page(tmp_path, services, config):
    services.script["/v1/chat/completions"] = [(401, {}, {"error": {"message": "no such key"}})]
    code, _, err = run(tmp_path, "--config", str(config))
    assert code == 1
    assert "no document was written: auth (infrastructure): HTTP 401: no such key" in err
    assert not (tmp_path / "page.html").exists()
    assert left_over(tmp_path) == []


def test_a_tool_that_refuses_the_key_is_reported_at_once(tmp_path, services, config):
    """The command does not wait until the request's deadline, which is minutes away."""
    services.script["/v1/images/edits"] = [(401, {}, {"error": {"message": "no such key"}})] * 20
    code, out, err = run(tmp_path, "--config", str(config), "--json")
    assert code == 0, err
    rows = [(row["outcome"], row["fault"]) for row in json.loads(out)["images"] if row["tool"] == "edit"]
    assert rows == [("auth", "infrastructure")]


def test_control_c_ends_the_author_and_all_that_was_started(tmp_path, services, config):
    services.chat = Chat([TEXT], finish=None, then="stall")
    process = begin(tmp_path, ["--config", str(config)])
    try:
        assert process.stderr is not None
        shown = next((line for line in process.stderr if line.startswith("writing; ")), "")
        assert shown, "it ended by itself"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "stopped by SIGINT" in err
    assert services.gone == 1
    assert left_over(tmp_path) == []


def test_workers_that_are_alive_are_used(
    tmp_path, services, library, config_file, config, redis_server, worker, monkeypatch
):
    document = json.loads(config_file.read_text()) | sections(services, library)
    config_file.write_text(json.dumps(document))
    for queues in (("search",), ("code", "diffusion", "edit")):
        worker(queues)
    monkeypatch.setenv(REDIS_ENV, redis_server.url)
    with redis.Redis.from_url(redis_server.url) as client:  # as a run, or the first node to join, does
        client.set(CONFIG_KEY, config_file.read_text())
    code, _, err = run(tmp_path, "--config", str(config))
    assert code == 0, err
    assert "starting" not in err
    assert (tmp_path / "page.html").read_text().count('src="data:image/') == 3
