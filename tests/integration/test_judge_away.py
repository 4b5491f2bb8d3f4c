"""A judge stops and comes back: what waits, what continues, and that no reward has changed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import StartWorker
from fake_services import FakeServices
from PIL import Image
from queue_requests import cause_of
from waiting import until

from policy.document import Document, ImagePart, Tag, Task, TextPart
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.rollout.result import Segment
from policy.rollout.rollout import Limits, Rollout
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.broker.breakers import read_breakers
from workers.broker.depths import read_depths
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Outcome, Request, Success
from workers.settings import QueueSettings
from workers.storage.blobs import BlobStore

FAILURES = 2
END = 256
PROMPTS, N, MIN_VALID, BATCH = 5, 4, 2, 2

Configure = Callable[..., JudgeSettings]


def grades(body: dict[str, Any]) -> str:
    """A verdict that depends on the document alone."""
    first, second, *_ = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    return json.dumps({"text": 1 + first % 5, "image_tags": 1 + second % 5})


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as running:
        running.judge.verdict = grades
        yield running


@pytest.fixture
def configure(config_file: Path, services: FakeServices) -> Configure:
    """Puts the text judge behind the fake service, and says how its breaker works."""

    def configure(**breaker: object) -> JudgeSettings:
        document = json.loads(config_file.read_text())
        document["queue"]["breaker"] = {"failures": FAILURES, "open_s": 0.3, "max_open_s": 0.6, **breaker}
        document["judges"] = {"text": {"provider": "openai", "base_url": f"{services.url}/v1", "model": "m"}}
        config_file.write_text(json.dumps(document))
        return JudgeSettings.model_validate(document["judges"])

    return configure


def text_request(number: int) -> Request:
    payload = JudgeTextPayload(question=f"Question {number}?", parts=())
    return Request.make(TEXT_KIND, payload, timeout_s=60.0)


def image_request(config_file: Path) -> Request:
    """For the image judge, which goes by rules."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    blob = BlobStore(json.loads(config_file.read_text())["blobs"]["url"]).put(buffer.getvalue())
    tag = Tag(source="diffusion", description="grey heron", params={"prompt": "grey heron"})
    made = Outcome(request_id="r", kind="diffusion", result=Success(images=(blob,)))
    parts = (TextPart(text="A heron.\n"), ImagePart(index=0, tag=tag, raw="", outcome=made))
    document = Document(rollout_id="r", task=Task(question="Herons.", image_num=1), parts=parts)
    return Request.make(IMAGE_KIND, JudgeImagePayload.of(document), timeout_s=60.0)


async def ask(client: QueueClient, request: Request) -> Outcome:
    return await (await client.post(request)).outcome()


def named(services: FakeServices) -> str:
    return f"openai at {services.url.removeprefix('http://')}"


def down(settings: QueueSettings) -> list[str]:
    return [str(one) for one in read_breakers(settings.url).outages]


async def test_requests_for_a_judge_that_is_away_wait_in_their_queue_and_others_go_on(
    configure: Configure,
    worker: StartWorker,
    services: FakeServices,
    queue_settings: QueueSettings,
    config_file: Path,
) -> None:
    configure(open_s=2.0, max_open_s=2.0)
    worker([TEXT_KIND, IMAGE_KIND], 2)
    services.judge.status = 503
    async with asyncio.timeout(60), QueueClient(queue_settings) as client:
        posted = [await client.post(text_request(number)) for number in range(8)]
        await until(lambda: bool(down(queue_settings)))
        await until(lambda: read_depths(queue_settings.url)[TEXT_KIND].running == 0)
        assert read_depths(queue_settings.url)[TEXT_KIND].waiting >= 8 - FAILURES
        assert (await ask(client, image_request(config_file))).ok
        [words] = down(queue_settings)
        services.judge.status = 200
        outcomes = await asyncio.gather(*(one.outcome() for one in posted))
    assert words.startswith(f"judge_text ({named(services)}) has been failing since")
    failed = [cause_of(outcome) for outcome in outcomes if not outcome.ok]
    assert set(failed) <= {Cause.PROVIDER_DOWN}
    assert len(failed) < 4, "more failed than those that opened the breaker and tried in vain"
    assert down(queue_settings) == []


async def test_where_samples_are_masked_a_request_fails_at_once_and_names_the_provider(
    configure: Configure, worker: StartWorker, services: FakeServices, queue_settings: QueueSettings
) -> None:
    configure(while_open="mask", open_s=1.0, max_open_s=1.0)
    worker([TEXT_KIND])
    services.judge.status = 401  # which is not tried again
    async with asyncio.timeout(60), QueueClient(queue_settings) as client:
        seen = [cause_of(await ask(client, text_request(number))) for number in range(FAILURES)]
        calls = len(services.seen)
        open_circuit = await ask(client, text_request(9))
        assert seen == [Cause.AUTH] * FAILURES
        assert len(services.seen) == calls
        services.judge.status = 200
        await until(lambda: read_breakers(queue_settings.url).admits(TEXT_KIND, named(services)))
        assert (await ask(client, text_request(10))).ok
    assert cause_of(open_circuit) is Cause.PROVIDER_DOWN
    assert open_circuit.result.provider == named(services)
    assert down(queue_settings) == []


class Run:
    """Groups of documents by the real rollout and scorer, replaced when too few are valid.

    `trained`: the valid rewards, by prompt and sibling; `thrown_away`: groups.
    """

    def __init__(self, client: QueueClient, judges: JudgeSettings, folder: Path):
        self.trained: dict[tuple[int, int], float] = {}
        self.thrown_away = 0
        self.masked = 0
        self._client = client
        self._scorer = QueueScorer(RewardSettings(), judges)
        self._ledger = LedgerWriter(folder, "rollout")
        self._name = folder.name
        self._asked = 0

    async def train(self, between: Callable[[], Awaitable[None]]) -> None:
        """All prompts, a batch at a time; `between` is awaited after the first batch."""
        prompts = deque(range(PROMPTS))
        while prompts:
            batch = [prompts.popleft() for _ in range(min(BATCH, len(prompts)))]
            groups = await asyncio.gather(*map(self._group, batch))
            for prompt, rewards in zip(batch, groups, strict=True):
                valid = {session: reward for session, reward in enumerate(rewards) if reward is not None}
                self.masked += N - len(valid)
                if len(valid) < MIN_VALID:
                    self.thrown_away += 1
                    prompts.append(prompt)
                else:
                    self.trained |= {(prompt, session): reward for session, reward in valid.items()}
            if batch == [0, 1]:
                await between()
        self._ledger.close()

    async def _group(self, prompt: int) -> list[float | None]:
        self._asked += 1
        uid = f"{self._name}{self._asked}"  # of no other run: an id has one outcome
        return await asyncio.gather(*(self._rollout(f"{uid}_{n}", prompt, n) for n in range(N)))

    async def _rollout(self, rollout_id: str, prompt: int, session: int) -> float | None:
        text = f"Answer {session} to question {prompt}."
        task = Task(question=f"Question {prompt}?", image_num=0)
        self._ledger.started(rollout_id, task)

        async def generate(ids: list[int], left: int, number: int) -> Segment:
            tokens = [*text.encode(), END]
            return Segment(tokens, [-0.5] * len(tokens))

        rollout = Rollout(
            rollout_id=rollout_id,
            task=task,
            generate=generate,
            decode=lambda ids: bytes(token for token in ids if token != END).decode(),
            ends=frozenset({END}),
            client=self._client,
            scorer=self._scorer,
            ledger=self._ledger,
            limits=Limits(response_tokens=1000, timeout_s=60.0),
        )
        return (await rollout.run([1])).reward


async def nothing() -> None:
    pass


@pytest.mark.parametrize("while_open", ["wait", "mask"])
async def test_rewards_trained_on_are_those_of_an_undisturbed_run(
    while_open: str,
    configure: Configure,
    worker: StartWorker,
    services: FakeServices,
    queue_settings: QueueSettings,
    tmp_path: Path,
) -> None:
    judges = configure(while_open=while_open)
    worker([TEXT_KIND], 4)
    back: list[asyncio.Task[None]] = []
    async with asyncio.timeout(90), QueueClient(queue_settings) as client:
        calm = Run(client, judges, tmp_path / "calm")
        await calm.train(nothing)
        disturbed = Run(client, judges, tmp_path / "disturbed")

        async def taken_away() -> None:
            services.judge.status = 401

            async def bring_back() -> None:
                await until(lambda: bool(down(queue_settings)))
                if while_open == "mask":
                    await until(lambda: disturbed.thrown_away > 0)
                else:
                    await until(lambda: read_depths(queue_settings.url)[TEXT_KIND].waiting > 0)
                services.judge.status = 200

            back.append(asyncio.create_task(bring_back()))

        await disturbed.train(taken_away)
        await asyncio.gather(*back)
    assert disturbed.masked > 0, "the outage went unnoticed"
    assert len(set(calm.trained.values())) > 3, "the documents have too few different rewards"
    assert disturbed.trained == {key: calm.trained[key] for key in disturbed.trained}
    assert len(disturbed.trained) >= PROMPTS * N - disturbed.masked
    for rollout in read_ledger(tmp_path / "disturbed").rollouts.values():
        assert rollout.score is not None
        assert (rollout.reward is None) == bool(rollout.score.masked_by)
