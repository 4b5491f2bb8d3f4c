"""A process that keeps a model survives cancelled and late jobs, and loads the model once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import StartWorker
from waiting import until

from workers import jobs
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.errors import Cause
from workers.messages import Failure, Message, Outcome, Request
from workers.process.worker import WorkerProcess
from workers.providers import registry
from workers.settings import QueueSettings, ToolSettings

NOTES_ENV = "LLMI_TEST_NOTES"
LONG = 2000  # steps: 100 s, longer than any of these tests
WAIT_S = 30.0


class Steps(Message):
    """As the jobs of `gpu_jobs` take it, which only workers import."""

    name: str
    steps: int


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """`noted(words)`: the processes that noted it, in order."""
    path = tmp_path / "noted"
    monkeypatch.setenv(NOTES_ENV, str(path))

    def read(words: str) -> list[int]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == words]

    return read


@pytest.fixture
def gpu(worker: StartWorker, noted: Callable[[str], list[int]]) -> Callable[..., WorkerProcess]:
    def start(*queues: str) -> WorkerProcess:
        return worker(queues, 1, app="gpu_app")

    return start


async def post(
    client: QueueClient, kind: str, name: str, steps: int, *, limit_s: float = WAIT_S
) -> RequestHandle:
    request = Request.make(kind, Steps(name=name, steps=steps), timeout_s=WAIT_S + limit_s, limit_s=limit_s)
    return await client.post(request)


def cause(outcome: Outcome) -> Cause | None:
    return outcome.result.cause if isinstance(outcome.result, Failure) else None


async def answered_by(client: QueueClient, kind: str) -> int:
    """The process that does one more job of `kind`."""
    async with asyncio.timeout(WAIT_S):
        outcome = await (await post(client, kind, "last", 1)).outcome()
    assert outcome.ok, outcome.result
    return int(str(outcome.result.source["pid"]))


async def test_cancelling_running_images_keeps_the_process_and_its_model(
    gpu: Callable[..., WorkerProcess], client: QueueClient, noted: Callable[[str], list[int]]
) -> None:
    gpu("diffusion", "edit")
    (process,) = noted("load diffusion")
    for n in range(3):
        running = await post(client, "diffusion", f"image {n}", LONG)
        await until(lambda n=n: noted(f"begin image {n}") == [process])
        await client.cancel(running.request.request_id)
        assert cause(await running.outcome()) is Cause.CANCELLED
        await until(lambda n=n: noted(f"stop image {n}") == [process])
    assert await answered_by(client, "diffusion") == process
    assert noted("load diffusion") == [process]


async def test_a_job_that_cannot_stop_runs_to_its_end_and_its_result_is_discarded(
    gpu: Callable[..., WorkerProcess], client: QueueClient, noted: Callable[[str], list[int]]
) -> None:
    gpu("diffusion", "edit")
    running = await post(client, "edit", "edit", 40)
    await until(lambda: bool(noted("begin edit")))
    await client.cancel(running.request.request_id)
    assert await answered_by(client, "edit") == noted("end edit")[0]
    assert cause(await running.outcome()) is Cause.CANCELLED
    assert len(noted("load edit")) == 1


@pytest.mark.parametrize("kind", ["diffusion", "edit"])
async def test_a_job_over_its_limit_keeps_the_process_and_its_model(
    gpu: Callable[..., WorkerProcess], client: QueueClient, noted: Callable[[str], list[int]], kind: str
) -> None:
    gpu("diffusion", "edit")
    steps = LONG if kind == "diffusion" else 120  # 6 s: Celery would end it by force after 3.5
    late = await post(client, kind, "late", steps, limit_s=1.0)
    await until(lambda: bool(noted("begin late")))
    process = await answered_by(client, kind)
    assert noted(f"load {kind}") == [process]
    assert cause(await late.outcome()) is (Cause.CANCELLED if kind == "diffusion" else None)


async def test_code_in_a_process_with_a_model_is_not_killed(
    gpu: Callable[..., WorkerProcess], client: QueueClient, noted: Callable[[str], list[int]]
) -> None:
    gpu("diffusion", "code")
    running = await post(client, "code", "code", 20)
    await until(lambda: bool(noted("begin code")))
    await client.cancel(running.request.request_id)
    assert await answered_by(client, "diffusion") == noted("load diffusion")[0]
    assert len(noted("load diffusion")) == 1


async def test_terminating_from_a_dashboard_keeps_the_process(
    gpu: Callable[..., WorkerProcess],
    client: QueueClient,
    queue_settings: QueueSettings,
    noted: Callable[[str], list[int]],
) -> None:
    from celery import Celery

    gpu("edit")
    running = await post(client, "edit", "edit", 30)
    await until(lambda: bool(noted("begin edit")))
    with Celery(broker=queue_settings.url, set_as_current=False) as app:
        app.control.revoke(running.request.request_id, terminate=True, signal="SIGKILL")
    assert await answered_by(client, "edit") == noted("end edit")[0] == noted("load edit")[0]


async def test_code_in_its_own_process_is_killed_at_once(
    gpu: Callable[..., WorkerProcess], client: QueueClient, noted: Callable[[str], list[int]]
) -> None:
    gpu("code")
    running = await post(client, "code", "code", LONG)
    await until(lambda: bool(noted("begin code")))
    await client.cancel(running.request.request_id)
    assert await answered_by(client, "code") != noted("begin code")[0]


@pytest.mark.parametrize(
    ("kind", "provider", "keeps"),
    [
        ("diffusion", "diffusers", True),
        ("edit", "diffusers", True),
        ("diffusion", "openai", False),
        ("edit", "qwen_server", False),
        ("search", "diffusers", False),
        ("judge_image", "diffusers", False),
        ("code", "diffusers", False),
        ("video", "diffusers", False),
    ],
)
def test_a_model_is_kept_only_with_a_local_pipeline(
    monkeypatch: pytest.MonkeyPatch, kind: str, provider: str, keeps: bool
) -> None:

    monkeypatch.setenv("QWEN_IMAGE_SERVER_URL", "http://images:1")
    monkeypatch.setenv("QWEN_EDIT_SERVER_URL", "http://images:1")
    tools = ToolSettings.model_validate(
        {tool: {"provider": provider, "base_url": "http://images:1/v1"} for tool in ("diffusion", "edit")}
    )
    monkeypatch.setattr(registry, "section", lambda _name, _model: tools)
    jobs.load_jobs()
    assert jobs.holds_model(kind) is keeps
