"""Answers that mask samples and that a retry does not fix are counted, and a share of them is an advisory."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.cli.commands.runs import _show
from coordinator.watch.masking_answers import LEAST, LISTED, RECENT, MaskingAnswers
from coordinator.watch.status import read_status
from policy.document import Task
from policy.ledger.entries import Posted, RequestEnded, Started
from policy.ledger.writer import LedgerWriter
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, Success


def outcome(result: Success | Failure, kind: str = "judge_text", request_id: str = "r") -> Outcome:
    return Outcome(request_id=request_id, kind=kind, result=result)


def refusal(detail: str = "HTTP 400: no", cause: Cause = Cause.BAD_ANSWER) -> Failure:
    return Failure(cause=cause, detail=detail, provider="text judge")


def answers_to(*results: Success | Failure) -> MaskingAnswers:
    answers = MaskingAnswers()
    for result in results:
        answers.add(outcome(result))
    return answers


@pytest.mark.parametrize("cause", [Cause.BAD_ANSWER, Cause.VERDICT_UNREADABLE])
def test_a_share_of_refusals_is_an_advisory_that_names_provider_and_answer(cause: Cause) -> None:
    (advisory,) = answers_to(
        *[refusal(cause=cause)] * 5, refusal("HTTP 422: x", cause), *[Success()] * 14
    ).advisories
    assert advisory == (
        "judge_text: 6 of the last 20 requests masked their samples by answers that a retry does not fix; "
        f"5 times text judge answered {cause}: HTTP 400: no"
    )


@pytest.mark.parametrize(
    "results",
    [
        [refusal()] * (LEAST - 1),
        [refusal()] * LEAST + [Success()] * RECENT,
        [refusal()] * 10 + [Success()] * 190,
        [refusal(cause=Cause.PROMPT_REFUSED)] * 50,
        [refusal(cause=Cause.PROVIDER_DOWN)] * 50,
        [],
    ],
)
def test_few_of_them_and_other_failures_are_none(results: list[Success | Failure]) -> None:
    assert answers_to(*results).advisories == []


def test_all_are_listed_by_kind_and_the_list_is_bounded() -> None:
    answers = answers_to(refusal(), refusal(), *[refusal(f"{n}") for n in range(2 * LISTED)])
    answers.add(outcome(refusal("\x1b[2Jx" * 500), "search"))
    assert next(iter(answers.counts["judge_text"].items())) == (
        "text judge answered bad_answer: HTTP 400: no",
        2,
    )
    assert len(answers.counts["judge_text"]) == LISTED
    ((words, _),) = answers.counts["search"].items()
    assert words.isprintable()
    assert len(words) <= 300


def test_a_runs_status_shows_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    writer, now = LedgerWriter(tmp_path, "test"), time.time()
    writer.append(Started(time=now, rollout_id="g_0", task=Task(question="q")))
    for n in range(LEAST):
        asked = Request(request_id=f"{n}", kind="judge_text", payload={}, deadline=now + 60, owner="g_0")
        writer.append(Posted(time=now, request=asked))
        writer.append(RequestEnded(time=now, outcome=outcome(refusal(), request_id=f"{n}")))
    writer.close()
    status = read_status(tmp_path)
    assert status.masking_answers == {"judge_text": {"text judge answered bad_answer: HTTP 400: no": LEAST}}
    console = Console(file=io.StringIO(), width=200)
    _show(console, status, tmp_path)
    assert "masking answers judge_text: 5 of the last 5 requests masked" in console.file.getvalue()
