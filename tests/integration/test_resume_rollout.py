"""A new rollout process continues the rollouts of one that died, at every stage.

Each gives the same document, and no request runs twice.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartWorker
from PIL import Image
from waiting import until

from coordinator.state.resume import entries
from policy.document import Task
from policy.ledger.entries import Resumed
from policy.ledger.merge import merge
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumeDecision, plan_resume
from policy.resume.state import ResumeClient
from policy.rollout.result import RolloutResult, Segment, replay, restored
from policy.rollout.rollout import Limits, Rollout
from policy.scoring import Draft, Score
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.broker.keys import STATS
from workers.client import blocking as submit
from workers.client.client import QueueClient
from workers.process.worker import WorkerProcess
from workers.redis_client import connect_redis
from workers.settings import QueueSettings

WAIT_S = 40.0
PROMPT, END = [1, 2, 3], 256
TASK = Task(question="Show a teal square.", image_num=1, tools=("search",))
TAG = "<imgen>{'source': 'search', 'description': 'a square', 'params': {'query': 'teal square'}}</imgen>"
# By the state of each when its process dies.
SCORED, PICTURED, WAITING, ANSWERED = "u_0", "u_1", "u_2", "u_3"


class Never:
    """Stands for a scorer that has not started anything when its process dies."""

    async def score(self, draft: Draft) -> Score:
        await draft.finished
        await asyncio.Event().wait()
        raise AssertionError


async def write(ids: list[int], left: int, number: int) -> Segment:
    """A model that writes UTF-8 bytes."""
    part = (f"Here it is: {TAG}", " A teal square.")[number]
    tokens = [*part.encode(), *([END] if number else [])]
    return Segment(tokens, [-0.25] * len(tokens), (0, number))


def decode(ids: Any) -> str:
    return bytes(token for token in ids if token != END).decode("utf-8", "replace")


class Process:
    """A rollout process: a loop of its own, which stands still (dead) unless `run` is called."""

    def __init__(self, run: Path, queue: QueueSettings):
        self.loop = asyncio.new_event_loop()
        self.ledger = LedgerWriter(run, "rollout")
        self.texts = CompletionStore(run)
        self.client = QueueClient(queue, on_posted=self.ledger.posted, on_outcome=self.ledger.request_ended)
        self.started: list[asyncio.Task[RolloutResult]] = []
        self.run(self.client.start())

    def run(self, event: Awaitable[Any]) -> Any:
        async def waiting() -> Any:
            async with asyncio.timeout(WAIT_S):
                return await event

        return self.loop.run_until_complete(waiting())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        self.run(until(condition, WAIT_S))

    def begin(self, name: str, scorer: Any, **others: Any) -> asyncio.Task[RolloutResult]:
        parts: dict[str, Any] = {"generate": write, "client": self.client, "texts": self.texts, **others}
        rollout = Rollout(
            rollout_id=name, task=TASK, decode=decode, ends=frozenset({END}), scorer=scorer,
            ledger=self.ledger, limits=Limits(1000, WAIT_S), **parts,
        )  # fmt: skip
        self.started.append(self.loop.create_task(rollout.run(PROMPT)))
        return self.started[-1]

    def cancel_all(self) -> None:
        async def end() -> None:
            for task in self.started:
                task.cancel()
            await asyncio.gather(*self.started, return_exceptions=True)
            await self.client.close()

        self.run(end())
        self.ledger.close()
        self.loop.close()


@pytest.fixture
def process(tmp_path: Path, queue_settings: QueueSettings) -> Iterator[Callable[[], Process]]:
    made: list[Process] = []

    def make() -> Process:
        made.append(Process(tmp_path, queue_settings))
        return made[-1]

    yield make
    for one in made:
        one.cancel_all()


@pytest.fixture
def at_work(config_file: Path, tmp_path: Path, worker: StartWorker) -> Callable[[], WorkerProcess]:
    """Starts a worker for search and both judges, with one picture to be found."""
    library = tmp_path / "library"
    library.mkdir()
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(out, "PNG")
    (library / "a.png").write_bytes(out.getvalue())
    (library / "captions.jsonl").write_text(json.dumps({"file": "a.png", "caption": "a teal square"}) + "\n")
    document = json.loads(config_file.read_text())
    document["tools"] = {"search": {"library": str(library)}}
    config_file.write_text(json.dumps(document))
    return lambda: worker(["search", "judge_text", "judge_image"], 4)


def resume(run: Path) -> ResumeDecision:
    ledger = read_ledger(run)
    entry = Resumed(time=max(time.time(), ledger.last), step=0)
    merge(ledger, entry)
    decided = plan_resume(ledger, CompletionStore(run).load, allowed=4)
    writer = LedgerWriter(run, "coordinator")
    for received in (entry, *entries(decided, entry.time)):
        writer.append(received)
    writer.close()
    return decided


def go_on(process: Process, name: str, decided: ResumeDecision) -> asyncio.Task[RolloutResult]:
    continued = decided.continued[name]
    text = process.texts.load(name)
    assert text is not None
    client = ResumeClient(process.client, continued.outcomes)
    scorer = QueueScorer(RewardSettings(), JudgeSettings())
    return process.begin(
        name, scorer, generate=replay(text, continued.cut), client=client, texts=None, replayed=True
    )


def test_each_goes_on_from_where_it_was(
    process: Callable[[], Process],
    at_work: Callable[[], WorkerProcess],
    queue_settings: QueueSettings,
    tmp_path: Path,
) -> None:
    first, dying = at_work(), process()
    for name in (SCORED, PICTURED, WAITING, ANSWERED):
        dying.ledger.started(name, TASK, step=1)
    whole = dying.run(dying.begin(SCORED, QueueScorer(RewardSettings(), JudgeSettings())))
    dying.begin(PICTURED, Never())
    dying.wait_for(lambda: has_outcome(tmp_path, f"{PICTURED}-0"))
    first.kill()
    asked = [f"{name}-0" for name in (WAITING, ANSWERED)]
    dying.begin(WAITING, Never())
    dying.begin(ANSWERED, Never())
    with connect_redis(queue_settings.url) as server:
        dying.wait_for(lambda: posted(tmp_path) >= {*asked})
        decided = resume(tmp_path)  # from here on nothing happens in the dead process
        alive = process()
        going = [go_on(alive, WAITING, decided)]
        alive.wait_for(lambda: alive.client.in_flight == 2)  # its picture and its judge
        at_work()
        alive.wait_for(lambda: bool(submit.outcomes(server, [f"{ANSWERED}-0"])))
        going += [go_on(alive, name, decided) for name in (PICTURED, ANSWERED)]
        written = [alive.run(task) for task in going]
        outcomes = submit.outcomes(server, sorted(posted(tmp_path)))
        ended = {name.decode(): int(n) for name, n in server.hgetall(STATS).items() if name.endswith(b":n")}

    assert (decided.abandoned, decided.orphans) == ({}, ())
    brought = decided.continued[SCORED]
    assert (brought.document, brought.score) == (whole.document, whole.score)
    text = alive.texts.load(SCORED)
    assert text is not None
    again = restored(PROMPT, text, whole.document, whole.score, brought.cut)
    assert whole.reward is not None
    for one in (again, *written):
        assert one.reward == whole.reward
        assert (one.token_ids, one.log_probs) == (whole.token_ids, whole.log_probs)
        assert one.document.images[0].blob == whole.document.images[0].blob
    assert ended == {"search:n": 4, "judge_text:n": 4, "judge_image:n": 4}
    assert [outcome.attempt for outcome in outcomes.values()] == [1] * 12
    ledger = read_ledger(tmp_path)
    assert ledger.violations == ledger.pending == []
    assert len(ledger.requests) == 12


def has_outcome(run: Path, request_id: str) -> bool:
    record = read_ledger(run).requests.get(request_id)
    return record is not None and record.outcome is not None


def posted(run: Path) -> set[str]:
    return set(read_ledger(run).requests)
