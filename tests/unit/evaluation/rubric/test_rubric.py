"""The judges of criteria: the request to a model, valid verdicts, and the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_services import FakeServices, png
from hypothesis import given
from hypothesis import strategies as st
from rewards_documents import F, I, P, X, document

from evaluation.payloads import RubricPayload
from evaluation.rubric import rules as rubric_rules
from evaluation.rubric.judge import check
from evaluation.rubric.openai import INSTRUCTIONS, SCHEMA, rubric_chat
from evaluation.settings import RubricSettings
from policy.document import Document
from workers import jobs
from workers.errors import Cause, InfrastructureFault
from workers.messages import Failure, Outcome, Request, Success
from workers.storage.blobs import BlobStore

KIND = "judge_rubric"
RULES = RubricSettings()


def ask_rules(doc: Document, criterion: str) -> Success:
    return rubric_rules.judge(RubricPayload.of(doc, criterion, RULES))


def score_of(success: Success) -> int:
    assert success.verdict is not None
    return success.verdict["score"]


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as server:
        yield server


@pytest.fixture
def run(services: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the job on one criterion, its judge being the local server."""
    settings = RubricSettings(provider="openai", base_url=f"{services.url}/v1", api_key_env="")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"rubric": settings.model_dump(mode="json")}))
    monkeypatch.setenv("LLMI_CONFIG", str(config))
    jobs.load_jobs()
    blobs = BlobStore(str(tmp_path / "blobs"))

    def ask(criterion: str = "It names the heron.", wanted: RubricSettings = settings) -> Outcome:
        blob = blobs.put(png("orange"))
        payload = RubricPayload.of(document(P("A heron."), I(blob=blob)), criterion, wanted)
        return jobs.run(Request.make(KIND, payload, timeout_s=20, seed=7), blobs)

    return ask


def test_a_verdict_is_a_score_with_its_reason_and_judge(run: Any, services: FakeServices) -> None:
    services.judge.answer = '{"reason": "It does, in the first line.", "score": 1}'
    result = run().result
    assert isinstance(result, Success)
    assert result.verdict == {"score": 1}
    assert result.source == {"judge": "served-judge", "reason": "It does, in the first line."}


@pytest.mark.parametrize(
    "answer",
    [
        '{"reason": "x", "score": 3}',
        '{"reason": "x", "score": -1}',
        '{"reason": "x", "score": "2"}',
        '{"reason": "x", "score": 1.5}',
        '{"reason": "x", "score": true}',
        '{"reason": "x"}',
        '{"score": 2}',
        '{"reason": "", "score": 2}',
        "2",
        "Score: 2",
        "",
    ],
)
def test_anything_else_is_unreadable(run: Any, services: FakeServices, answer: str) -> None:
    services.judge.answer = answer
    result = run().result
    assert isinstance(result, Failure)
    assert result.cause is Cause.VERDICT_UNREADABLE


def test_the_request_binds_the_answer_and_shows_the_picture(run: Any, services: FakeServices) -> None:
    run()
    body = services.seen[0].body
    assert body["temperature"] == 0
    assert body["seed"] == 7
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert [part["type"] for part in body["messages"][1]["content"]].count("image_url") == 1


def test_two_criteria_share_all_but_the_end(run: Any, services: FakeServices) -> None:
    run("It names the heron.")
    run("It shows reeds.")
    one, other = ([*seen.body["messages"][1]["content"]] for seen in services.seen)
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]
    assert "It names the heron." in one[-1]["text"]
    assert services.seen[0].body["messages"][0] == services.seen[1].body["messages"][0]


def test_a_judge_that_the_batch_does_not_name_gives_no_verdict(run: Any, services: FakeServices) -> None:
    result = run(wanted=RubricSettings(provider="openai", model="another")).result
    assert isinstance(result, Failure)
    assert result.cause is Cause.BAD_MESSAGE
    assert "'another'" in result.detail
    assert "'gpt-4o'" in result.detail
    assert services.seen == []


def test_missing_pictures_and_broken_tags_are_marked() -> None:
    payload = RubricPayload.of(document(P("x"), F(), X()), "c", RULES)
    content = rubric_chat(payload, lambda ref: "data:", 20)[1]["content"]
    texts = " ".join(part["text"] for part in content)
    for mark in ("no picture", "broken tag"):
        assert f" {mark}⟧" in texts
        assert f'"{mark}"' in INSTRUCTIONS


def test_by_rules_the_words_of_the_criterion_are_searched_for() -> None:
    doc = document(P("The grey heron hunts among reeds."))
    assert score_of(ask_rules(doc, "It speaks of the heron, reeds and hunting grey.")) == 1  # 3 of 5
    assert score_of(ask_rules(doc, "The grey heron and the reeds.")) == 2
    assert score_of(ask_rules(doc, "A volcano erupts over an island.")) == 0
    assert str(ask_rules(doc, "The grey heron.").source["reason"]).startswith("by rules: ")


def test_by_rules_a_picture_that_never_came_fulfils_nothing() -> None:
    criterion = "A picture of the heron."
    assert score_of(ask_rules(document(P("heron"), F()), criterion)) == 0
    assert score_of(ask_rules(document(P("heron"), I()), criterion)) == 2


def test_by_rules_a_criterion_without_a_subject_has_no_verdict() -> None:
    with pytest.raises(InfrastructureFault) as caught:
        ask_rules(document(P("x")), "It is and was.")
    assert caught.value.cause is Cause.VERDICT_UNREADABLE


@given(st.lists(st.sampled_from(["heron", "reeds", "dawn", "volcano", "island"])), st.text(max_size=20))
def test_by_rules_more_words_never_lower_a_score(words: list[str], more: str) -> None:
    criterion = "Heron, reeds and dawn."
    before = score_of(ask_rules(document(P(" ".join(words))), criterion))
    after = score_of(ask_rules(document(P(" ".join(words)), P(f"\n{more}")), criterion))
    assert after >= before


def test_the_check_finds_a_missing_key_or_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("RUBRIC_JUDGE_BASE_URL", raising=False)
    assert check(RubricSettings()) == []
    assert "OPENAI_API_KEY" in check(RubricSettings(provider="openai"))[0]
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert check(RubricSettings(provider="openai")) == []
    monkeypatch.delenv("OPENAI_API_KEY")
    own = RubricSettings(provider="openai", base_url="http://judge:8000/v1")
    assert check(own) == []
    assert "rubric.model" in check(RubricSettings(provider="openai", model=""))[0]
    monkeypatch.setenv("RUBRIC_JUDGE_BASE_URL", "judge.example")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert "RUBRIC_JUDGE_BASE_URL" in check(RubricSettings(provider="openai"))[0]
