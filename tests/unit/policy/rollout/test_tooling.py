"""The limits of one document: its number of requests, and its seconds of code."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import PATIENCE_S, Queue, blob, edit, search

from policy.document import ImagePart, InvalidPart, Part
from policy.grammar.tags import read as read_tags
from policy.resume.state import ResumeClient
from policy.rollout.code_budget import CodeBudget, decide
from policy.rollout.tooling import Tooling
from workers.errors import Cause, Fault
from workers.messages import Failure, Outcome, Success
from workers.settings import CodeSettings, ToolSettings

CODE = "<imgen>{'source': 'code', 'description': 'd', 'params': {'code': 'plt.plot([1, 2])'}}</imgen>"
DRAWN = Success(images=(blob("a"),))
LIMIT_S = 15.0


def tools(budget_s: float = 60.0, **fields) -> ToolSettings:
    return ToolSettings(code=CodeSettings(budget_s=budget_s, wall_s=LIMIT_S), **fields)


def tooling(queue: Queue, settings: ToolSettings) -> Tooling:
    return Tooling(queue, rollout_id="u_0", inputs=(), seed=1, tools=settings)


def read(text: str) -> tuple[Part, ...]:
    return read_tags(text, inputs=0)


def posted(queue: Queue) -> list[int]:
    return [int(name.removeprefix("u_0-")) for name in queue.requests]


async def finish(document: Tooling, parts) -> list[Cause | None]:
    """The cause of each image part's failure, None for an image."""
    async with asyncio.timeout(PATIENCE_S):
        done = await document.finish(parts)
    await document.close()
    return [part.failure.cause if part.failure else None for part in done if isinstance(part, ImagePart)]


async def turns() -> None:
    """Let every task run until it waits for something."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_number_of_requests_of_a_document_is_limited() -> None:
    queue = Queue()
    document = tooling(queue, tools(max_requests=11))
    parts = document.take(read(" and ".join(search(f"owl {n}") for n in range(500))))
    await turns()
    assert posted(queue) == list(range(11))
    beyond = [part for part in parts if isinstance(part, InvalidPart)]
    assert [part.index for part in beyond] == list(range(11, 500))
    assert "tools.max_requests" in beyond[0].reason
    await document.close()


async def test_invalid_tags_and_text_do_not_count_as_requests() -> None:
    queue = Queue()
    document = tooling(queue, tools(max_requests=2))
    parts = document.take(read(f"<imgen>none</imgen> a {search('x')} b <imgen>none</imgen> {search('y')}"))
    await turns()
    assert posted(queue) == [1, 3]
    assert sum(isinstance(part, InvalidPart) for part in parts) == 2
    await document.close()


async def test_the_limit_holds_over_all_segments_of_a_document() -> None:
    queue = Queue()
    document = tooling(queue, tools(max_requests=2))
    segments = [[part] for part in read(search("x") * 3)]
    assert [document.take(part)[0].type for part in segments] == ["image", "image", "invalid"]
    await document.close()


async def test_an_edit_of_a_tag_beyond_the_limit_is_the_models_fault() -> None:
    queue = Queue()
    document = tooling(queue, tools(max_requests=2))
    parts = document.take(read(f"{search('x')} {edit(0)} {search('z')}"))
    assert [part.type for part in parts if part.type != "text"] == ["image", "image", "invalid"]
    await turns()
    assert posted(queue) == [0]
    await document.close()


async def test_code_beyond_the_budget_is_the_models_fault_and_never_posted() -> None:
    """Six tags that sleep for 14.5 s: four have reserved the budget, and leave nothing for the others."""
    queue = Queue()
    document = tooling(queue, tools(budget_s=60.0))
    parts = document.take(read(CODE * 6))
    await turns()
    assert posted(queue) == [0, 1, 2, 3], "all at once would get round the budget"
    for name in list(queue.requests):
        queue.answer(name, DRAWN, ran_s=14.5)
    causes = await finish(document, parts)
    assert causes == [None] * 4 + [Cause.CODE_BUDGET] * 2
    assert Cause.CODE_BUDGET.fault is Fault.MODEL
    assert posted(queue) == [0, 1, 2, 3]


async def test_code_is_posted_when_running_jobs_release_time() -> None:
    queue = Queue()
    document = tooling(queue, tools(budget_s=30.0))
    parts = document.take(read(CODE * 6))
    for n in range(6):
        await queue.seen(f"u_0-{n}")
        assert len(posted(queue)) <= n + 2
        queue.answer(f"u_0-{n}", DRAWN, ran_s=0.5)
    assert await finish(document, parts) == [None] * 6


@pytest.mark.parametrize("ran_s", [0.0, 0.5])
async def test_time_in_the_queue_uses_no_budget(ran_s: float) -> None:
    """A job that never ran has used nothing, nor has one that waited and then was quick."""
    queue = Queue()
    document = tooling(queue, tools(budget_s=15.0))
    parts = document.take(read(CODE * 2))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Failure(cause=Cause.TIMEOUT) if not ran_s else DRAWN, ran_s=ran_s)
    if not ran_s:
        await queue.seen("u_0-1")
        queue.answer("u_0-1", DRAWN, ran_s=14.0)
        assert await finish(document, parts) == [Cause.TIMEOUT, None]
    else:
        assert await finish(document, parts) == [None, Cause.CODE_BUDGET]


async def test_failed_code_uses_budget() -> None:
    queue = Queue()
    document = tooling(queue, tools(budget_s=15.0))
    parts = document.take(read(CODE * 2))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Failure(cause=Cause.CODE_LIMIT), ran_s=15.2)
    assert await finish(document, parts) == [Cause.CODE_LIMIT, Cause.CODE_BUDGET]


async def test_other_tools_use_no_code_budget() -> None:
    queue = Queue()
    document = tooling(queue, tools(budget_s=15.0))
    parts = document.take(read(f"{search('x')} {CODE}"))
    await queue.seen("u_0-0", "u_0-1")
    queue.answer("u_0-0", DRAWN, ran_s=50.0)
    queue.answer("u_0-1", DRAWN, ran_s=1.0)
    assert await finish(document, parts) == [None, None]


async def test_a_lost_chart_that_is_made_again_uses_no_budget() -> None:
    queue = Queue()
    document = tooling(queue, tools(budget_s=15.0))
    parts = document.take(read(CODE))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", DRAWN, ran_s=14.0)
    await document.finish(parts)
    again = asyncio.create_task(document.remake("a" * 64))
    await queue.seen("u_0-0.1")
    queue.answer("u_0-0.1", DRAWN, ran_s=14.0)
    assert await again
    await document.close()


async def test_closing_cancels_tags_that_wait_for_the_budget() -> None:
    queue = Queue()
    document = tooling(queue, tools(budget_s=15.0))
    document.take(read(CODE * 3))
    await turns()
    async with asyncio.timeout(PATIENCE_S):
        await document.close()
    assert queue.cancelled == ["u_0-0"]


class Joins(Queue):
    """A queue that a resumed run has joined: requests in progress are reattached."""

    async def reattach(self, request):
        return await self.post(request)


async def test_a_resumed_document_has_the_remaining_budget() -> None:
    """Code that ran before the process died counts, by its outcomes in the ledger."""
    queue = Joins()
    before = [
        Outcome(request_id=f"u_0-{n}", kind="code", result=DRAWN, started=1000.0, finished=1014.5)
        for n in range(3)
    ]
    document = tooling(ResumeClient(queue, before), tools(budget_s=60.0))
    parts = document.take(read(CODE * 6))
    await queue.seen("u_0-3")  # it was under way
    queue.answer("u_0-3", DRAWN, ran_s=14.5)
    assert await finish(document, parts) == [None] * 4 + [Cause.CODE_BUDGET] * 2
    assert posted(queue) == [3]


@pytest.mark.parametrize("tag", [CODE, search("x")])
async def test_time_in_the_queue_does_not_shorten_a_job(tag: str) -> None:
    queue, settings, before = Queue(), tools(), time.time()
    document = tooling(queue, settings)
    document.take(read(tag))
    await queue.seen("u_0-0")
    request = queue.requests["u_0-0"]
    assert request.limit_s == settings.limit_s(request.kind)
    assert before <= request.start_by - queue.wait_s <= time.time()
    await document.close()


@given(
    st.floats(1.0, 20.0),
    st.floats(1.0, 10.0),
    st.lists(st.floats(0.0, 1.5), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_no_order_of_completion_exceeds_the_budget(limit_s, limits, shares, chance) -> None:
    """Jobs that run for a share of their limit each, or beyond it, and end in any order."""

    async def answer_in_turn() -> None:
        budget, running, used = CodeBudget(limit_s * limits, limit_s), {}, []

        async def job(share_of_limit: float) -> None:
            async with budget.share() as share:
                if not share.granted:
                    return
                over = running[id(share)] = asyncio.Event()
                await over.wait()
                share.ran_s = share_of_limit * limit_s
                used.append(min(share.ran_s, limit_s))

        tasks = [asyncio.create_task(job(share)) for share in shares]
        while not all(task.done() for task in tasks):
            await turns()
            assert sum(used) + len(running) * limit_s <= limit_s * limits + 1e-6
            if running:
                running.pop(chance.choice(sorted(running))).set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(answer_in_turn(), PATIENCE_S))


@pytest.mark.parametrize(
    ("left_s", "running", "decision"),
    [(15.0, True, "run"), (15.0, False, "run"), (14.9, True, "wait"), (14.9, False, "refuse")],
)
def test_a_job_runs_with_its_whole_limit_or_not_at_all(left_s: float, running: bool, decision: str) -> None:
    assert decide(left_s, LIMIT_S, running=running) == decision


@pytest.mark.parametrize(("budget_s", "wall_s"), [(10.0, 15.0), (0.5, 1.0)])
def test_a_budget_below_one_job_is_refused(budget_s: float, wall_s: float) -> None:
    with pytest.raises(ValueError, match="raise it, or lower wall_s"):
        CodeSettings(budget_s=budget_s, wall_s=wall_s)


def test_a_long_wall_limit_is_not_cut_short_by_the_jobs_own() -> None:
    assert ToolSettings(code=CodeSettings(wall_s=120.0, budget_s=240.0)).limit_s("code") > 120.0
