"""Expected scores and reasons of a served judge, from a real HTTP server."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, Judge, configure, judge_server, refused, said, verdict
from rewards_documents import P, document

from rewards.judges import TEXT_KIND
from rewards.judges.payloads import JudgeTextPayload
from rewards.judges.served import structured
from rewards.judges.served.reasons import LEAST_S
from workers import jobs
from workers.messages import Failure, Request, Success
from workers.storage.blobs import BlobStore

REASONS = {"text": "It is thin.", "image_tags": "The tag is vague."}


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setattr(structured, "_without_logprobs", set())
    with judge_server(tmp_path, monkeypatch) as server:
        yield server


def read(tmp_path: Path, prose: str = "A heron.", timeout_s: float = 30) -> Success | Failure:
    request = Request.make(TEXT_KIND, JudgeTextPayload.of(document(P(prose))), timeout_s=timeout_s)
    return jobs.run(request, BlobStore(str(tmp_path / "blobs"))).result


def with_logprobs(body: dict[str, Any]) -> Answer:
    """A 4 that was nearly a 5, and a certain 3."""
    chances: list[tuple[str, dict[str, float]]] = [
        ('{"text": ', {}), ("4", {"4": 0.6, "5": 0.4}),
        (', "image_tags": ', {}), ("3", {"3": 1.0}), ("}", {}),
    ]  # fmt: skip
    tokens = [
        {
            "token": token,
            "logprob": math.log(top.get(token, 1.0)),
            "top_logprobs": [{"token": one, "logprob": math.log(p)} for one, p in top.items()],
        }
        for token, top in chances
    ]
    status, answer = verdict(body)
    answer["choices"][0]["logprobs"] = {"content": tokens}
    return status, answer


def test_a_verdict_has_its_integers_and_its_expected_scores(judge: Judge, tmp_path: Path) -> None:
    judge.decide = with_logprobs
    result = read(tmp_path)
    assert isinstance(result, Success), result
    assert result.verdict == {"text": 4, "image_tags": 3}
    assert result.source["expected"] == {"text": 4.4, "image_tags": 3.0}
    assert judge.seen[0]["logprobs"] is True
    assert judge.seen[0]["top_logprobs"] == 20


def test_expected_scores_can_be_switched_off(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, judge, expected_scores=False)
    judge.decide = with_logprobs
    result = read(tmp_path)
    assert isinstance(result, Success), result
    assert "expected" not in result.source
    assert not {"logprobs", "top_logprobs"} & set(judge.seen[0])


@pytest.mark.parametrize(
    "refusal",
    [
        refused("You are not allowed to request logprobs from this model", status=403),
        refused("Unsupported parameter: 'logprobs' is not supported with this model."),
        refused("Requested sample logprobs of 20, which is greater than max allowed: 5"),
    ],
)
def test_an_endpoint_without_logprobs_is_asked_once_and_then_gives_integers(
    judge: Judge, tmp_path: Path, refusal: Answer
) -> None:
    judge.decide = lambda body: refusal if "logprobs" in body else verdict(body)
    for _ in range(2):
        result = read(tmp_path)
        assert isinstance(result, Success), result
        assert result.verdict == {"text": 4, "image_tags": 3}
        assert not {"expected", "shortened"} & set(result.source)
    assert ["logprobs" in body for body in judge.seen] == [True, False, False]


def test_a_document_about_logprobs_switches_nothing_off(judge: Judge, tmp_path: Path) -> None:
    """An error may quote the document; only an answer without log-probabilities decides."""
    prose = "Logprobs, explained. " * 2000
    judge.decide = lambda body: (
        refused(f"too long: {prose[:60]}") if len(str(body)) > 30_000 else with_logprobs(body)
    )
    result = read(tmp_path, prose)
    assert isinstance(result, Success), result
    assert result.source["shortened"]
    assert result.source["expected"] == {"text": 4.4, "image_tags": 3.0}
    assert ["logprobs" in body for body in judge.seen] == [True, False, True]


def answers_reasons(body: dict[str, Any]) -> Answer:
    schema = body["response_format"]["json_schema"]
    return said(json.dumps(REASONS)) if schema["name"] == "Reasons" else verdict(body)


def test_reasons_are_asked_for_after_the_verdict_which_they_do_not_change(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(tmp_path)
    configure(tmp_path / "again", monkeypatch, judge, reasons=True)
    judge.decide = answers_reasons
    result = read(tmp_path)
    assert isinstance(result, Success), result
    assert result.verdict == {"text": 4, "image_tags": 3}
    assert result.source["reasons"] == REASONS
    without, first, second = judge.seen
    assert first == without
    assert second["messages"][:2] == first["messages"]
    assert [turn["role"] for turn in second["messages"][2:]] == ["assistant", "user"]
    assert json.loads(second["messages"][2]["content"]) == result.verdict
    assert second["max_tokens"] > first["max_tokens"]


@pytest.mark.parametrize(
    "answer",
    [
        said('{"text": "It is thin."}'),
        said('{"text": "cut off', finish="length"),
        said('{"text": 1, "image_tags": 2}'),
        said("[]"),
        said("I'm sorry, but I can't assist with that request."),
        refused(),
        refused("no", status=401),
    ],
)
def test_a_judge_that_gives_no_reasons_has_given_its_verdict(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    configure(tmp_path, monkeypatch, judge, reasons=True)
    judge.decide = lambda body: (
        answer if body["response_format"]["json_schema"]["name"] == "Reasons" else verdict(body)
    )
    result = read(tmp_path)
    assert isinstance(result, Success), result
    assert result.verdict == {"text": 4, "image_tags": 3}
    assert "reasons" not in result.source
    assert result.source["reasons_missing"]


def test_no_reasons_are_asked_for_when_the_verdict_could_be_late(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, judge, reasons=True)
    result = read(tmp_path, timeout_s=LEAST_S - 1)
    assert isinstance(result, Success), result
    assert result.source["reasons_missing"] == "no time is left"
    assert len(judge.seen) == 1


def test_the_reasons_of_a_shortened_document_are_about_what_the_judge_saw(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, judge, reasons=True)
    judge.decide = lambda body: refused() if len(str(body)) > 30_000 else answers_reasons(body)
    result = read(tmp_path, "A heron stands in the water. " * 2000)
    assert isinstance(result, Success), result
    assert result.source["reasons"] == REASONS
    _, short, asked = judge.seen
    assert asked["messages"][:2] == short["messages"]
