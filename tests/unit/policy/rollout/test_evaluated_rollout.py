"""A document of an evaluation: a rollout with lower priority, with a time of its own, apart in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import END, PATIENCE_S, Judge, Queue, blob, search

from policy.document import Task
from policy.inflight import InFlightCounter
from policy.ledger.reader import close_open, read_ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumePlan
from policy.rollout.evaluation import evaluation_limits
from policy.rollout.rollout import Limits
from workers.errors import Cause
from workers.messages import LOW, NORMAL, Success
from workers.settings import ToolSettings

TRAINED, EVALUATED = "5f3a", "eval-4-1c2d-0"
TEXT = f"A cat: {search('cat')} and more."


class Server:
    """Simulates verl's client of the generators. `held`: never answers."""

    def __init__(self, counter: InFlightCounter):
        self.counter = counter
        self.held = False
        self.calls: list[dict[str, Any]] = []

    async def generate(self, *, prompt_ids: list[int], **options: Any) -> Any:
        self.calls.append({**options, "counted": self.counter.generating})
        if self.held:
            await asyncio.Event().wait()
        ids = [*TEXT.encode(), END]
        versions = {"min_global_steps": 4, "max_global_steps": 5}
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields=versions)


@pytest.fixture
def process(tmp_path, monkeypatch):
    """A rollout process, without verl's tokenizer. `run(uid)` runs a rollout as verl does."""
    from policy.rollout import agent_loop

    class Loop(agent_loop.InterleavedAgentLoop):
        def __init__(self, server: Server) -> None:
            self.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(model=SimpleNamespace(path="m")))
            self.server_manager = server
            self.tokenizer = SimpleNamespace(
                decode=lambda ids, **_: bytes(token for token in ids if token != END).decode()
            )
            self._run_folder, self._scorer, self._seed = tmp_path, "", 0
            self._limits, self._evaluated_at_once = Limits(500, PATIENCE_S), 1
            self._evaluation_limits = evaluation_limits(500, PATIENCE_S)

        async def ct_build_initial_tokens(self, messages: Any, images: Any = None) -> list[int]:
            return [1, 2, 3]

    ledger, counter = LedgerWriter(tmp_path, "rollout"), InFlightCounter()
    made = SimpleNamespace(server=Server(counter), queue=Queue(), judge=Judge())
    shared = SimpleNamespace(
        client=made.queue, scorer=made.judge, ledger=ledger, texts=CompletionStore(tmp_path),
        plan=ResumePlan(), blobs=None, ends=frozenset({END}), in_flight=counter, tools=ToolSettings(),
        metrics=SimpleNamespace(rollout=contextlib.nullcontext), evaluated=asyncio.Semaphore(1),
    )  # fmt: skip

    async def resources(*_: Any) -> Any:
        return shared

    async def run(uid: str, timeout_s: float = PATIENCE_S) -> Any:
        loop = Loop(made.server)
        loop._evaluation_limits = evaluation_limits(500, timeout_s)
        row = {
            "task": Task(question="q").model_dump_json(), "uid": uid, "session_id": 0, "global_steps": 4,
            "index": 0, "visit": 0, "raw_prompt": [],
        }  # fmt: skip
        return await loop.run({}, **row)

    monkeypatch.setattr(agent_loop, "resources", resources)
    made.run = run
    yield made
    ledger.close()


@pytest.mark.parametrize(
    ("uid", "requests", "generation", "slots"), [(TRAINED, NORMAL, None, 1), (EVALUATED, LOW, 1, 0)]
)
async def test_requests_and_generation_of_an_evaluation_come_after_those_of_training(
    process, tmp_path, uid, requests, generation, slots
) -> None:
    running = asyncio.create_task(process.run(uid))
    await process.queue.seen(f"{uid}_0-0")
    process.queue.answer(f"{uid}_0-0", Success(images=(blob("a"),)))
    async with asyncio.timeout(PATIENCE_S):
        trajectory = await running
    assert process.queue.requests[f"{uid}_0-0"].priority == requests
    (call,) = process.server.calls
    assert call.get("priority") == generation
    assert call["counted"] == slots, "admission counts the slots of training"
    assert trajectory.extra_fields["max_global_steps"] == 5
    assert (tmp_path / "texts").exists() is (uid == TRAINED), "an evaluation is done again, not continued"


async def test_few_run_at_once_and_the_others_have_not_started(process, tmp_path) -> None:
    second, third = "eval-4-1c2d-1", "eval-4-1c2d-2"
    running = {}
    for uid in (EVALUATED, second, third, TRAINED):
        running[uid] = asyncio.create_task(process.run(uid, timeout_s=PATIENCE_S))
    await process.queue.seen(f"{TRAINED}_0-0")  # it started last
    assert read_ledger(tmp_path).evaluated.keys() == {f"{EVALUATED}_0"}
    assert len(process.server.calls) == 2
    running[second].cancel()
    await asyncio.wait([running[second]])
    for uid in (TRAINED, EVALUATED, third):
        await process.queue.seen(f"{uid}_0-0")
        process.queue.answer(f"{uid}_0-0", Success(images=(blob("a"),)))
        async with asyncio.timeout(PATIENCE_S):
            await running[uid]
    assert read_ledger(tmp_path).evaluated.keys() == {f"{EVALUATED}_0", f"{third}_0"}


async def test_it_is_no_rollout_of_training_in_the_ledger(process, tmp_path) -> None:
    running = asyncio.create_task(process.run(EVALUATED))
    await process.queue.seen(f"{EVALUATED}_0-0")
    process.queue.answer(f"{EVALUATED}_0-0", Success(images=(blob("a"),)))
    async with asyncio.timeout(PATIENCE_S):
        await running
    ledger = read_ledger(tmp_path)
    assert ledger.rollouts == {}
    record = ledger.evaluated[f"{EVALUATED}_0"]
    assert (record.submitted_step, record.versions, record.state) == (4, (4, 5), None)
    assert close_open(tmp_path).evaluated[f"{EVALUATED}_0"].state == "cancelled"


async def test_a_text_that_runs_out_of_time_is_masked_since_training_came_first(process, tmp_path) -> None:
    process.server.held = True
    assert await process.run(EVALUATED, timeout_s=0.1) == []
    record = read_ledger(tmp_path).evaluated[f"{EVALUATED}_0"]
    [failure] = record.score.masked_by
    assert (record.state, failure.cause) == ("masked", Cause.ROLLOUT_TIMEOUT)
    assert failure.detail == "the text was not complete within 0.1 s (train.evaluate_timeout_s)"
