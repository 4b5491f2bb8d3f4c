"""The scorer: what it posts and when, what masks, what it cancels. The client of the queue is a fake."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rewards_documents import BLOB, F, I, P, X, document, pending

from policy.document import Document
from policy.scoring import Draft, Score
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.messages import NORMAL, Failure, Outcome, Request, Success

GOOD = {
    "judge_text": {"text": 4, "image_tags": 4},
    "judge_image": {"image_quality": 4, "task_relevance": 4, "text_image_relevance": 4},
}
Answer = Callable[[Request], Outcome | None]


def good(request: Request) -> Outcome:
    return Outcome(
        request_id=request.request_id, kind=request.kind, result=Success(verdict=GOOD[request.kind])
    )


class FakePosted:
    def __init__(self, outcome: Outcome | None):
        self._outcome = outcome

    async def outcome(self) -> Outcome:
        if self._outcome is None:
            await asyncio.Event().wait()
        assert self._outcome is not None
        return self._outcome


class FakeClient:
    """Answers each request with `answer`, or never if it is None."""

    wait_s = 600.0
    priority = NORMAL

    def __init__(self, answer: Answer = good):
        self.answer = answer
        self.posted: list[Request] = []
        self.cancelled: list[str] = []
        self.posted_event = asyncio.Event()

    async def post(self, request: Request) -> FakePosted:
        self.posted.append(request)
        self.posted_event.set()
        return FakePosted(self.answer(request))

    async def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    @property
    def kinds(self) -> list[str]:
        return [request.kind for request in self.posted]


def draft_of(
    doc: Document, client: FakeClient, finished: asyncio.Future[Document] | None = None, **more: object
) -> Draft:
    if finished is None:
        finished = asyncio.get_running_loop().create_future()
        finished.set_result(doc)
    return Draft(document=doc, finished=finished, client=client, **more)  # type: ignore[arg-type]


async def score(doc: Document, client: FakeClient, formula: str = "grounded") -> Score:
    scorer = QueueScorer(RewardSettings.model_validate({"formula": formula}), JudgeSettings())
    async with asyncio.timeout(5):
        return await scorer.score(draft_of(doc, client))


async def test_both_verdicts_become_a_reward_with_its_breakdown() -> None:
    client = FakeClient()
    result = await score(document(P("x"), I(), image_num=1), client)
    assert result.reward == pytest.approx(0.8)
    assert result.breakdown["verdicts"] == {"text": GOOD["judge_text"], "image": GOOD["judge_image"]}
    assert client.kinds == ["judge_text", "judge_image"]
    assert client.cancelled == []


@pytest.mark.parametrize(("formula", "shown"), [("grounded", 2), ("llmi", 4)])
async def test_a_copy_and_an_edit_without_effect_are_shown_where_images_are_only_counted(
    formula: str, shown: int
) -> None:
    client = FakeClient()
    parts = (P("x"), I(blob=BLOB), I("search"), I(blob=BLOB), I("edit", unchanged=True))
    await score(document(*parts), client, formula)
    payload = next(request.payload for request in client.posted if request.kind == "judge_image")
    assert [part["type"] for part in payload["parts"]] == ["text", *["image"] * shown]


async def test_the_text_judge_does_not_wait_for_images() -> None:
    client = FakeClient()
    images: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
    drafted = document(P("x"), pending(), image_num=1)
    scorer = QueueScorer(RewardSettings(), JudgeSettings())
    async with asyncio.timeout(5):
        task = asyncio.create_task(scorer.score(draft_of(drafted, client, images)))
        await client.posted_event.wait()
        assert client.kinds == ["judge_text"]
        images.set_result(document(P("x"), I(), image_num=1))
        assert (await task).reward == pytest.approx(0.8)
    assert client.kinds == ["judge_text", "judge_image"]


@pytest.mark.parametrize(
    "parts",
    [(P("x"),), (P("x"), F(), X()), (P("x"), *[I()] * 11)],
    ids=["no image", "no image came out", "more than ten"],
)
async def test_no_image_judge_where_its_verdict_cannot_matter(parts: tuple) -> None:
    client = FakeClient()
    assert (await score(document(*parts), client)).reward is not None
    assert client.kinds == ["judge_text"]


async def test_a_tool_lost_to_infrastructure_masks_the_sample_and_frees_the_text_judge() -> None:
    client = FakeClient(lambda request: None)
    result = await score(document(P("x"), I(), F(cause=Cause.WORKER_LOST), F(cause=Cause.NO_HIT)), client)
    assert result.reward is None
    assert [failure.cause for failure in result.masked_by] == [Cause.WORKER_LOST]
    assert client.cancelled == [client.posted[0].request_id]


@pytest.mark.parametrize(("made", "image_num"), [(10, 0), (10, 4), (12, 11)])
async def test_too_many_images_count_also_when_infrastructure_lost_one(made: int, image_num: int) -> None:
    client = FakeClient()
    parts = (P("x"), *[I()] * made)
    result = await score(document(*parts, F(cause=Cause.WORKER_LOST), image_num=image_num), client, "llmi")
    assert result.reward == (await score(document(*parts, I(), image_num=image_num), client, "llmi")).reward
    assert result.breakdown["lost"] == ["worker_lost"]
    assert set(client.kinds) == {"judge_text"}


@pytest.mark.parametrize(("made", "image_num"), [(10, 0), (10, 99), (0, -1)])
async def test_what_cannot_earn_by_its_images_is_scored_without_a_lost_one(made: int, image_num: int) -> None:
    parts, lost = (P("x"), *[I()] * made), F(cause=Cause.WORKER_LOST)
    result = await score(document(*parts, lost, image_num=image_num), FakeClient())
    assert result.reward == (await score(document(*parts, I(), image_num=image_num), FakeClient())).reward
    masked = await score(document(*parts, lost, image_num=12), FakeClient())
    assert masked.reward is None


async def test_ten_images_are_not_too_many_and_a_lost_one_masks() -> None:
    lost = F(cause=Cause.WORKER_LOST)
    result = await score(document(P("x"), *[I()] * 9, lost, F(), X()), FakeClient(), "llmi")
    assert [failure.cause for failure in result.masked_by] == [Cause.WORKER_LOST]


async def test_a_failed_judge_masks_a_document_with_too_many_images() -> None:
    client = FakeClient(lambda request: Outcome.failed(request, Cause.PROVIDER_DOWN))
    parts = (P("x"), *[I()] * 10, F(cause=Cause.WORKER_LOST))
    result = await score(document(*parts), client, "llmi")
    assert [failure.cause for failure in result.masked_by] == [Cause.PROVIDER_DOWN]


async def test_a_failure_of_the_model_is_counted_and_masks_nothing() -> None:
    result = await score(document(P("x"), I(), F(cause=Cause.CODE_RAISED), image_num=2), FakeClient())
    assert result.reward is not None
    assert result.breakdown["counts"] == {"asked": 2, "images": 1, "failed": 1, "invalid": 0}


@pytest.mark.parametrize("kind", ["judge_text", "judge_image"])
async def test_a_failed_judge_masks_and_is_never_a_number(kind: str) -> None:
    def answer(request: Request) -> Outcome:
        if request.kind == kind:
            return Outcome.failed(request, Cause.PROVIDER_DOWN)
        return good(request)

    for formula in ("llmi", "grounded"):
        result = await score(document(P("x"), I()), FakeClient(answer), formula)
        assert result.reward is None
        assert [failure.cause for failure in result.masked_by] == [Cause.PROVIDER_DOWN]


@pytest.mark.parametrize(("kind", "axes"), [("judge_text", 2), ("judge_image", 3)])
async def test_a_document_that_a_judge_refuses_gets_its_worst_grades(kind: str, axes: int) -> None:
    def answer(request: Request) -> Outcome:
        if request.kind == kind:
            return Outcome.failed(request, Cause.PROMPT_REFUSED, "content_filter")
        return good(request)

    def worst(request: Request) -> Outcome:
        if request.kind != kind:
            return good(request)
        verdict = dict.fromkeys(GOOD[kind], 1)
        return Outcome(
            request_id=request.request_id, kind=kind, result=Success(verdict=verdict, source={"judge": "x"})
        )

    for formula in ("llmi", "grounded"):
        refused = await score(document(P("x"), I(), image_num=1), FakeClient(answer), formula)
        judged = await score(document(P("x"), I(), image_num=1), FakeClient(worst), formula)
        assert refused.reward is not None
        assert refused.reward == judged.reward
        assert refused.breakdown["refused"] == {kind: "content_filter"}
        assert "refused" not in judged.breakdown


async def test_the_breakdown_says_that_a_judge_saw_a_shortened_document() -> None:
    def answer(request: Request) -> Outcome:
        result = Success(verdict=GOOD[request.kind], source={"judge": "openai", "shortened": "HTTP 413"})
        return Outcome(request_id=request.request_id, kind=request.kind, result=result)

    result = await score(document(P("x")), FakeClient(answer))
    assert result.breakdown["shortened"] == {"judge_text": "HTTP 413"}


def answering(**source: object) -> Answer:
    """Every judge gives the `GOOD` verdict with this source; of `expected`, its own axes."""

    def answer(request: Request) -> Outcome:
        mine = dict(source)
        if isinstance(expected := source.get("expected"), dict):
            mine["expected"] = {axis: expected[axis] for axis in GOOD[request.kind] if axis in expected}
        result = Success(verdict=GOOD[request.kind], source=mine)
        return Outcome(request_id=request.request_id, kind=request.kind, result=result)

    return answer


EXPECTED = {
    "text": 4.5, "image_tags": 4.0, "image_quality": 3.8, "task_relevance": 4.0, "text_image_relevance": 4.0,
}  # fmt: skip


async def test_expected_scores_break_ties_and_the_published_formula_reads_integers() -> None:
    doc = document(P("x"), I(), image_num=1)
    plain, client = FakeClient(), FakeClient(answering(expected=EXPECTED))
    for formula, same in (("grounded", False), ("llmi", True)):
        integers, means = await score(doc, plain, formula), await score(doc, client, formula)
        assert (means.reward == integers.reward) is same
        assert means.breakdown["verdicts"] == integers.breakdown["verdicts"]
        assert means.breakdown["expected"] == EXPECTED
        assert "expected" not in integers.breakdown
    assert means.breakdown["axes"] == dict.fromkeys(EXPECTED, 4)


@pytest.mark.parametrize(
    "expected",
    [{**EXPECTED, "text": 5.5}, {**EXPECTED, "text": float("nan")}, {"text": 4.0}, {**EXPECTED, "text": "4"}],
)
async def test_expected_scores_outside_the_scale_mask(expected: dict[str, object]) -> None:
    result = await score(document(P("x"), I()), FakeClient(answering(expected=expected)))
    assert {failure.cause for failure in result.masked_by} == {Cause.VERDICT_UNREADABLE}


async def test_the_breakdown_keeps_the_judges_reasons() -> None:
    def answer(request: Request) -> Outcome:
        reasons = {axis: f"why {axis}" for axis in GOOD[request.kind]}
        return answering(reasons=reasons)(request)  # type: ignore[return-value]

    result = await score(document(P("x"), I()), FakeClient(answer))
    assert result.breakdown["reasons"] == {axis: f"why {axis}" for axis in EXPECTED}


@pytest.mark.parametrize("again", ["there", "lost once more", "not to be made", "no client"])
async def test_an_image_that_the_judge_finds_lost_is_made_again_and_judged_once_more(again: str) -> None:
    old, new = BLOB, BLOB.model_copy(update={"sha256": "b" * 64})
    missing = Failure(cause=Cause.BLOB_MISSING, detail="damaged", blob=old.sha256)
    asked: list[str] = []

    def answer(request: Request) -> Outcome:
        if request.kind == "judge_image" and (again == "lost once more" or not asked):
            return Outcome(request_id=request.request_id, kind=request.kind, result=missing)
        return good(request)

    async def remake(sha256: str) -> Document | None:
        asked.append(sha256)
        return None if again == "not to be made" else document(P("x"), I(blob=new), image_num=1)

    client = FakeClient(answer)
    more = {} if again == "no client" else {"remake": remake}
    drafted = draft_of(document(P("x"), I(blob=old), image_num=1), client, **more)
    async with asyncio.timeout(5):
        result = await QueueScorer(RewardSettings(), JudgeSettings()).score(drafted)
    looks = [request for request in client.posted if request.kind == "judge_image"]
    assert asked == ([] if again == "no client" else [old.sha256])
    assert len(looks) == (2 if again in ("there", "lost once more") else 1)
    assert len({request.request_id for request in looks}) == len(looks)
    assert new.sha256 in str(looks[-1].payload) or len(looks) == 1
    if again == "there":
        assert result.reward == pytest.approx(0.8)
    else:
        assert [failure.cause for failure in result.masked_by] == [Cause.BLOB_MISSING]


@pytest.mark.parametrize(
    "verdict", [{"text": 50, "image_tags": 5}, {"text": 0, "image_tags": 5}, {"text": 5}, None]
)
async def test_scores_outside_1_to_5_are_refused_and_mask(verdict: dict[str, int] | None) -> None:
    def answer(request: Request) -> Outcome:
        return Outcome(request_id=request.request_id, kind=request.kind, result=Success(verdict=verdict))

    result = await score(document(P("x")), FakeClient(answer))
    assert [failure.cause for failure in result.masked_by] == [Cause.VERDICT_UNREADABLE]


async def test_256_documents_are_judged_in_one_round() -> None:
    """Regression: with pools of 6 and 8 threads they took 43 rounds."""
    everything = asyncio.Event()

    class Held(FakePosted):
        async def outcome(self) -> Outcome:
            await everything.wait()
            return await super().outcome()

    class Busy(FakeClient):
        async def post(self, request: Request) -> FakePosted:
            self.posted.append(request)
            if len(self.posted) == 512:
                everything.set()
            return Held(good(request))

    client = Busy()
    results = await asyncio.gather(*(score(document(P("x"), I()), client) for _ in range(256)))
    assert all(result.reward is not None for result in results)


async def test_a_queue_that_accepts_no_request_masks() -> None:
    class Away(FakeClient):
        async def post(self, request: Request) -> FakePosted:
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "Redis is away")

    result = await score(document(P("x"), I()), Away())
    assert result.reward is None
    assert {failure.cause for failure in result.masked_by} == {Cause.PROVIDER_DOWN}


@pytest.mark.parametrize("doc", [document(P("x"), pending()), document(P("x"), I(), image_num=1)])
async def test_cancelling_the_scoring_cancels_its_requests(doc: Document) -> None:
    client = FakeClient(lambda request: None)
    unfinished: asyncio.Future[Document] | None = None
    if doc.images[0].outcome is None:
        unfinished = asyncio.get_running_loop().create_future()
    scorer = QueueScorer(RewardSettings(), JudgeSettings())
    async with asyncio.timeout(5):
        task = asyncio.create_task(scorer.score(draft_of(doc, client, unfinished)))
        while len(client.posted) < (1 if unfinished else 2):
            client.posted_event.clear()
            await client.posted_event.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sorted(client.cancelled) == sorted(request.request_id for request in client.posted)


async def test_requests_carry_their_owner_and_the_judges_time() -> None:
    client, before = FakeClient(), time.time()
    judges = JudgeSettings.model_validate({"text": {"timeout_s": 1000}})
    await QueueScorer(RewardSettings(), judges).score(draft_of(document(P("x"), rollout_id="r7"), client))
    request = client.posted[0]
    assert (request.owner, request.limit_s) == ("r7", 1000.0)
    assert before <= request.start_by - client.wait_s <= time.time(), "its queue comes on top"


async def test_requests_and_scores_name_the_judges() -> None:
    def answer(request: Request) -> Outcome:
        source = {"judge": "openai", "model": f"served-{request.kind}"}
        result = Success(verdict=GOOD[request.kind], source=source)
        return Outcome(request_id=request.request_id, kind=request.kind, result=result)

    client = FakeClient(answer)
    judges = JudgeSettings.model_validate({"text": {"provider": "openai", "model": "reader"}})
    result = await QueueScorer(RewardSettings(), judges).score(draft_of(document(P("x"), I()), client))
    assert [request.payload["judge"] for request in client.posted] == ["reader", "rules"]
    spoke = {"judge_text": "served-judge_text", "judge_image": "served-judge_image"}
    assert result.breakdown["judges"] == spoke


async def test_equal_documents_ask_with_equal_keys() -> None:
    client = FakeClient()
    await score(document(P("x"), I(), rollout_id="one"), client)
    await score(document(P("x"), I(), rollout_id="two"), client)
    first, second = client.posted[:2], client.posted[2:]
    assert [request.key for request in first] == [request.key for request in second]
    assert not {request.request_id for request in first} & {request.request_id for request in second}


def test_from_config_reads_both_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"reward": {"formula": "llmi", "vl": True}, "judges": {"image": {"max_images": 3}}})
    )
    monkeypatch.setenv("LLMI_CONFIG", str(config))
    scorer = QueueScorer.from_config()
    assert scorer.reward.formula == "llmi"
    assert scorer.judges.image.max_images == 3
    assert scorer.judges.image.model == "Qwen/Qwen2.5-VL-72B-Instruct"


def test_an_unknown_key_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"judges": {"text": {"temprature": 0.5}}}))
    monkeypatch.setenv("LLMI_CONFIG", str(config))
    with pytest.raises(ConfigError, match=r"judges\.text\.temprature"):
        QueueScorer.from_config()
