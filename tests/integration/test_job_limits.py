"""Time limits: a job's run time counts against the job, time in the queue against infrastructure."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from conftest import StartWorker
from queue_jobs import Order
from queue_requests import Notes, cause_of

from policy.document import ImagePart
from policy.grammar.tags import read
from policy.rollout.tooling import Tooling
from workers.client.client import QueueClient
from workers.errors import Cause, Fault
from workers.messages import Outcome, Request
from workers.settings import CodeSettings, ToolSettings

JAIL = ("landlock", "seccomp")
WAIT_S = 60.0


async def ask(client: QueueClient, order: Order, kind: str, *, limit_s: float) -> Outcome:
    request = Request.make(kind, order, timeout_s=WAIT_S, limit_s=limit_s)
    async with asyncio.timeout(WAIT_S):
        return await (await client.post(request)).outcome()


async def test_a_job_behind_slow_ones_has_its_whole_time(
    start_worker: StartWorker, client: QueueClient
) -> None:
    """Each job takes most of its limit, so the last one waits for longer than its own limit."""
    start_worker()
    outcomes = await asyncio.gather(*(ask(client, Order(seconds=1.5), "code", limit_s=2.0) for _ in range(4)))
    assert [cause_of(outcome) for outcome in outcomes] == [None] * 4
    assert all(1.5 <= outcome.run_s < WAIT_S / 2 for outcome in outcomes)


async def test_a_job_over_its_limit_frees_its_process_before_the_deadline(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    start_worker()
    slow, next_one = await asyncio.gather(
        ask(client, notes.order(seconds=WAIT_S), "code", limit_s=1.0),
        ask(client, Order(), "code", limit_s=1.0),
    )
    assert cause_of(slow) is Cause.TIMEOUT
    assert next_one.ok


async def test_a_request_past_its_start_deadline_is_not_started(
    start_worker: StartWorker, client: QueueClient, notes: Notes
) -> None:
    first = asyncio.create_task(ask(client, Order(seconds=3.0), "code", limit_s=5.0))
    late = Request.make("code", notes.order(), timeout_s=6.5, limit_s=6.0)
    start_worker()
    outcome = await (await client.post(late)).outcome()
    assert cause_of(outcome) is Cause.TIMEOUT
    assert Cause.TIMEOUT.fault is Fault.INFRASTRUCTURE
    assert (await first).ok
    assert notes.starts == []


SLEEPS = "import time; time.sleep(1.6); plt.plot([1, 2])"
LOOPS = "while True: pass"
CHART = "plt.plot([1, 3])"


@pytest.fixture
def jailed(config_file: Path, worker: StartWorker) -> ToolSettings:
    """One real code worker; the settings that its posters use."""
    tools = ToolSettings(code=CodeSettings(require=JAIL, wall_s=2.0, cpu_s=5.0, budget_s=4.0))
    document = json.loads(config_file.read_text())
    document["tools"] = tools.model_dump(mode="json")
    config_file.write_text(json.dumps(document))
    worker(["code"], 1)
    return tools


def tags(*codes: str) -> tuple:
    return read("".join(f"<imgen>{_tag(code)}</imgen>" for code in codes), inputs=0)


def _tag(code: str) -> dict[str, object]:
    return {"source": "code", "description": "d", "params": {"code": code}}


async def write(client: QueueClient, tools: ToolSettings, name: str, *codes: str) -> list[Cause | None]:
    """The causes of a document's failures, in the order of its tags."""
    document = Tooling(client, rollout_id=name, inputs=(), seed=1, tools=tools)
    async with asyncio.timeout(WAIT_S):
        parts = await document.finish(document.take(tags(*codes)))
    await document.close()
    return [part.failure.cause if part.failure else None for part in parts if isinstance(part, ImagePart)]


@pytest.mark.parametrize("slow", [SLEEPS, LOOPS])
async def test_slow_code_masks_neither_its_own_document_nor_the_next_one(
    jailed: ToolSettings, client: QueueClient, slow: str
) -> None:
    spoilt, chart = await asyncio.gather(
        write(client, jailed, "slow_0", *[slow] * 6), write(client, jailed, "honest_0", CHART)
    )
    assert chart == [None]
    assert {cause.fault for cause in spoilt if cause} == {Fault.MODEL}
    assert spoilt.count(Cause.CODE_BUDGET) >= 3
