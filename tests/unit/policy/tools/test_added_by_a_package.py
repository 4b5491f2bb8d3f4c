"""A package adds a search provider and a tool, and a document uses both."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import packages
import pytest

from policy import tools
from policy.document import Document, Task
from policy.grammar.prompts import system_prompt
from policy.grammar.tags import read
from policy.rollout.tooling import Tooling
from rewards.rules import tool_score
from workers import jobs
from workers.errors import ConfigError
from workers.extensions import loaders
from workers.messages import NORMAL, Outcome, Request
from workers.queues import QUEUES
from workers.settings import CONFIG_ENV, SearchSettings, ToolSettings
from workers.storage.blobs import BlobStore

PROVIDER = """
import io
from PIL import Image
from workers.providers.provider import Provider, ProviderImage
from workers.settings import SearchSettings, Settings

class Options(Settings):
    colour: str

class Plain(Provider[SearchSettings]):
    options_model = Options

    def call(self, request):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), self.options.colour).save(buffer, "PNG")
        return ProviderImage(buffer.getvalue(), {"provider": "plain"})
"""
TOOL = """
from policy.tool import Prose, Tool, ToolParams
from added.worker import GradientPayload

class GradientParams(ToolParams):
    colour: Prose
    steps: int

TOOL = Tool(
    name="gradient",
    params=GradientParams,
    prompt="fills a picture with shades of one colour.",
    payload=lambda params, image: GradientPayload.model_validate(params),
    weight=0.5,
    caption="Shaded",
)
"""
WORKER = """
import io
from PIL import Image
from pydantic import Field
from workers.jobs import job
from workers.messages import Message, Success
from workers.queues import QueueSpec

QUEUE = QueueSpec("gradient", "cpu", 30.0)

class GradientPayload(Message):
    colour: str
    steps: int = Field(ge=1)

@job("gradient", GradientPayload)
def gradient(payload, context):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), payload.colour).save(buffer, "PNG")
    return Success(images=(context.blobs.put(buffer.getvalue()),), source={"steps": payload.steps})
"""
Install = Callable[[dict[str, dict[str, str]]], None]
POINTS = {
    "llmi.search_providers": {"plain": "added.provider:Plain"},
    "llmi.tools": {"gradient": "added.tool:TOOL"},
    "llmi.queues": {"gradient": "added.worker:QUEUE"},
}
MODULES = {"added.__init__": "", "added.provider": PROVIDER, "added.tool": TOOL, "added.worker": WORKER}
TEXT = """A fox.
<imgen>{'source': 'search', 'description': 'A fox', 'params': {'query': 'fox'}}</imgen>
<imgen>{'source': 'gradient', 'description': 'Shades', 'params': {'colour': 'teal', 'steps': 3}}</imgen>
<imgen>{'source': 'gradient', 'description': 'It's none', 'params': {'colour': 'teal', 'steps': 0}}</imgen>
<imgen>{'source': 'gradient', 'description': 'None', 'params': {'colour': 'teal'}}</imgen>
"""


@pytest.fixture
def registries() -> Iterator[None]:
    """Registries that are read again, before the test and after it."""

    def forget() -> None:
        tools.tools.cache_clear()
        system_prompt.cache_clear()
        loaders.cache_clear()
        QUEUES.__dict__.pop("_specs", None)
        jobs.JOBS.pop("gradient", None)

    forget()
    yield
    forget()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registries: None) -> Iterator[Install]:
    yield lambda points: packages.install(monkeypatch, tmp_path / "package", MODULES, points)
    for name in [name for name in sys.modules if name.partition(".")[0] == "added"]:
        del sys.modules[name]


class Posted:
    def __init__(self, outcome: Outcome):
        self._outcome = outcome

    async def outcome(self) -> Outcome:
        return self._outcome


class Worker:
    """A queue and its worker in one: runs a posted request at once."""

    wait_s = 10.0
    priority = NORMAL

    def __init__(self, blobs: BlobStore):
        self.blobs = blobs

    async def post(self, request: Request) -> Posted:
        return Posted(await asyncio.to_thread(jobs.run, request, self.blobs))

    async def cancel(self, request_id: str) -> None:
        pass


async def test_a_document_uses_a_provider_and_a_tool_of_a_package(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(POINTS)
    settings = ToolSettings(search=SearchSettings(provider="plain", options={"colour": "orange"}))
    config = tmp_path / "config.json"
    config.write_text(f'{{"tools": {settings.model_dump_json()}}}')
    monkeypatch.setenv(CONFIG_ENV, str(config))
    assert tools.check() == []
    assert "- 'gradient' with {'colour': TEXT, 'steps': NUMBER}: fills" in system_prompt()

    blobs = BlobStore(str(tmp_path / "blobs"))
    tooling = Tooling(Worker(blobs), rollout_id="r", inputs=(), seed=1, tools=settings)
    parts = await tooling.finish(tooling.take(read(TEXT, inputs=0)))
    await tooling.close()
    document = Document(rollout_id="r", task=Task(question="q", tools=("gradient",)), parts=parts)

    found, shaded, refused = document.images
    assert found.outcome is not None
    assert found.outcome.result.source == {"provider": "plain", "query": "fox"}
    assert shaded.blob is not None
    assert refused.failure is not None
    assert refused.failure.cause == "bad_params"
    assert [part.reason for part in document.invalid] == ["gradient params.steps: is missing"]
    assert tool_score(["gradient"], ["gradient"], ["gradient"]) == 1.0
    assert tools.caption("gradient") == "Shaded"


def test_a_forgotten_queue_is_named_before_a_run(install: Install) -> None:
    install({"llmi.tools": POINTS["llmi.tools"]})
    [problem] = tools.check()
    assert "'gradient' has no queue" in problem


def test_a_forgotten_job_is_named_before_a_run(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    without = WORKER.replace('@job("gradient", GradientPayload)', "")
    monkeypatch.setitem(MODULES, "added.worker", without)
    install(POINTS)
    [problem] = tools.check()
    assert "'gradient' has no job" in problem


def test_a_tool_that_is_not_complete_is_refused(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULES, "added.tool", TOOL.replace("weight=0.5", "weight=0.0"))
    install(POINTS)
    with pytest.raises(ConfigError, match="weight must be above 0"):
        tools.tools()


def test_every_built_in_tool_is_complete(registries: None) -> None:
    assert tools.tool_names() == ("search", "diffusion", "code", "edit")
    assert tools.check() == []
