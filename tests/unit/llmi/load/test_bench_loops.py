"""The variants of the overlap benchmark: when each posts its requests, its threads, and the drawn times."""

from __future__ import annotations

import asyncio
import statistics

import pytest
from scripted import END, PATIENCE_S, PROMPT, Judge, Model, Queue, blob, decode, search

from llmi.load.overlap.loops import Barrier, BlockingRollout, CoupledRollout, Phases, Threads
from llmi.load.overlap.settings import OverlapSettings, widths
from llmi.load.simulated.services import ServiceSettings
from llmi.tools import SOURCES
from policy.document import Task
from policy.ledger.writer import LedgerWriter
from policy.rollout.rollout import Limits, Rollout
from workers.errors import InfrastructureFault
from workers.messages import Request, SearchPayload, Success

TWO = f"Before {search('a')} between {search('b')} after."
IMAGE = Success(images=(blob("a"),))


@pytest.fixture
def make(tmp_path):
    ledger = LedgerWriter(tmp_path, "rollout")

    def make(kind: type[Rollout], queue, *, name: str = "u_0", model=None, judge=None, **more) -> Rollout:
        task = Task(question="q")
        ledger.started(name, task)
        return kind(
            rollout_id=name,
            task=task,
            generate=model or Model(TWO),
            decode=decode,
            ends=frozenset({END}),
            client=queue,
            scorer=judge or Judge(),
            ledger=ledger,
            limits=Limits(2000, PATIENCE_S),
            **more,
        )

    yield make
    ledger.close()


async def test_a_coupled_rollout_asks_for_tools_after_its_text_and_for_judges_after_its_tools(make):
    queue, judge, model = Queue(), Judge(), Model(TWO, gate_at=1)
    running = asyncio.create_task(make(CoupledRollout, queue, model=model, judge=judge).run(PROMPT))
    await model.at_gate.wait()  # the first tag is closed, the text is not complete
    assert queue.requests == {}
    model.gate.set()
    await queue.seen("u_0-0", "u_0-1")
    queue.answer("u_0-0", IMAGE)
    assert not judge.drafted.is_set()
    queue.answer("u_0-1", IMAGE)
    written = await running
    assert judge.drafted.is_set()
    assert written.reward == pytest.approx(0.2)


async def test_a_blocking_batch_goes_from_phase_to_phase_together(make):
    queue, phases = Queue(), Phases((2, 8, 8))
    slow = Model(TWO, gate_at=2)
    judges = [Judge(), Judge()]
    rollouts = [
        make(BlockingRollout, queue, name=f"u_{number}", model=model, judge=judge, step=1, phases=phases)
        for number, (model, judge) in enumerate(zip([Model(TWO), slow], judges, strict=True))
    ]
    running = [asyncio.create_task(rollout.run(PROMPT)) for rollout in rollouts]
    await slow.at_gate.wait()
    for _ in range(20):  # turns of the loop, in which the first one could have gone on
        await asyncio.sleep(0)
    assert queue.requests == {}
    slow.gate.set()
    await queue.seen("u_0-0", "u_0-1", "u_1-0", "u_1-1")
    for name in ("u_0-0", "u_0-1", "u_1-0"):
        queue.answer(name, IMAGE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not judges[0].drafted.is_set()
    queue.answer("u_1-1", IMAGE)
    assert [written.reward for written in await asyncio.gather(*running)] == pytest.approx([0.2, 0.2])


def asked(number: int) -> Request:
    return Request.make("search", SearchPayload(query="q"), timeout_s=60, request_id=f"r{number}")


async def test_each_thread_has_one_request_in_flight():
    queue = Queue()
    threads = Threads(queue, asyncio.Semaphore(2), asyncio.Semaphore(1))
    posting = [asyncio.create_task(threads.post(asked(number))) for number in range(3)]
    await queue.seen("r0", "r1")
    for _ in range(20):
        await asyncio.sleep(0)
    assert set(queue.requests) == {"r0", "r1"}
    queue.answer("r0", IMAGE)
    await queue.seen("r2")
    queue.answer("r1", IMAGE)
    queue.answer("r2", IMAGE)
    for posted in await asyncio.gather(*posting):
        assert (await posted.outcome()).ok


async def test_a_thread_whose_posting_failed_is_free_again():
    threads = Threads(Queue(down=True), asyncio.Semaphore(1), asyncio.Semaphore(1))
    for number in range(2):
        with pytest.raises(InfrastructureFault):
            await threads.post(asked(number))


async def test_a_rollout_after_the_barrier_opened_does_not_wait():
    barrier = Barrier(1)
    async with asyncio.timeout(PATIENCE_S):
        await barrier.wait("first")
        await barrier.wait("late")


async def test_a_rollout_that_breaks_keeps_its_batch_from_nothing(make):
    class Broken:
        async def __call__(self, ids, left, number):
            raise RuntimeError("the engine is gone")

    queue, phases = Queue(), Phases((2, 8, 8))
    broken = make(BlockingRollout, queue, model=Broken(), step=1, phases=phases)
    with pytest.raises(RuntimeError, match="the engine is gone"):
        await broken.run(PROMPT)
    whole = make(BlockingRollout, queue, name="u_1", model=Model("No image."), step=1, phases=phases)
    assert (await whole.run(PROMPT)).reward == 1.0


def test_drawn_times_are_the_same_for_every_variant_and_have_the_configured_mean():
    services = ServiceSettings()
    assert services.draw("edit", 7) == ServiceSettings().draw("edit", 7)
    assert services.draw("edit", 7) != services.draw("diffusion", 7)
    draws = [services.draw("judge_text", number) for number in range(20_000)]
    assert min(draws) > 0
    assert statistics.fmean(draws) == pytest.approx(2.0, rel=0.03)
    assert services.fast(10).draw("code", 3) == pytest.approx(services.draw("code", 3) / 10)


def test_the_wide_variant_has_a_thread_for_each_slot():
    slots = {"search": 3, "diffusion": 4, "edit": 1, "code": 2, "judge_text": 5, "judge_image": 6}
    assert widths(ServiceSettings(slots=slots), SOURCES) == (10, 11)


def test_every_variant_has_warm_steps_and_all_repeats():
    settings = OverlapSettings()
    assert {name: variant.total(settings.repeats) for name, variant in settings.variants.items()} == {
        "blocking": 4, "blocking_wide": 7, "coupled": 26, "llmi": 30,
    }  # fmt: skip
