"""The page and numbers of an evaluation: documents, verdicts with reasons, missing parts with causes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_services import png
from pydantic import JsonValue
from rewards_documents import F, I, P, document

from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import ItemResult, Missing, Refused, unwritten
from evaluation.benchmark import Item, fingerprint
from evaluation.pages import evaluation_page
from evaluation.rubric.verdict import Judgement
from evaluation.settings import AuthorSettings, RubricSettings
from policy.document import Task
from policy.scoring import Score
from rewards.settings import JudgeSettings, RewardSettings
from workers.errors import Cause, ConfigError
from workers.messages import Failure
from workers.settings import BlobSettings, QueueSettings
from workers.storage.blobs import BlobStore

Make = Callable[..., Batch]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def make(tmp_path: Path, blobs: BlobStore) -> Make:
    """A batch of items with these criteria; without criteria it is a reward benchmark."""

    def run(*criteria: dict[str, str], question: str = "A page about herons.") -> Batch:
        items = tuple(
            Item(item_id=f"{n:04d}", task=Task(question=question), criteria=one)
            for n, one in enumerate(criteria, 1)
        )
        batch = Batch(str(tmp_path / "evals" / "e"))
        batch.create(
            Manifest(
                name="e",
                created=0.0,
                kind="rubric" if criteria[0] else "reward",
                benchmark="bench.json",
                sha256=fingerprint(items),
                items=items,
                author=AuthorSettings(model="tiny"),
                rubric=RubricSettings(),
                reward=RewardSettings(),
                judges=JudgeSettings(),
                blobs=BlobSettings(url=blobs.url),
                queue=QueueSettings(),
            )
        )
        return batch

    return run


def judged(score: int, why: str = "It says so.") -> Judgement:
    return Judgement(score=score, reason=why, judge="j")


def missing(detail: str = "HTTP 503") -> Missing:
    return Missing(failure=Failure(cause=Cause.PROVIDER_DOWN, detail=detail), attempts=3)


def written(batch: Batch) -> tuple[str, dict]:
    page, numbers, _ = evaluation_page.write(batch)
    return Path(page).read_text(), json.loads(Path(numbers).read_text())


def test_documents_stand_as_read_beside_their_verdicts(make: Make, blobs: BlobStore) -> None:
    batch = make({"r1": "It names the heron.", "r2": "It shows one."})
    batch.save_document("0001", document(P("**At dawn**"), I(blob=blobs.put(png())), P("it leaves."), F()))
    batch.save_result(
        ItemResult(
            item_id="0001",
            round=0,
            document_id="d",
            verdicts={"r1": judged(2, "In the first line."), "r2": judged(1, "Half of it.")},
        )
    )
    page, numbers = written(batch)
    assert page.index("<strong>At dawn</strong>") < page.index("data:image/png") < page.index("it leaves.")
    assert "The provider refused the prompt" in page
    assert "In the first line." in page
    assert "Half of it." in page
    assert numbers["score"]["value"] == 7.5
    assert numbers["items"][0]["criteria"][1] == {
        "name": "r2", "text": "It shows one.", "status": "judged", "score": 1, "reason": "Half of it.",
        "judge": "j",
    }  # fmt: skip


def test_a_missing_verdict_is_shown_with_its_cause_and_in_no_mean(make: Make) -> None:
    batch = make({"r1": "One.", "r2": "Two."}, {"r1": "Three."}, {"r1": "Four."})
    batch.save_document("0001", document(P("x")))
    verdicts = {"r1": judged(2), "r2": missing()}
    batch.save_result(ItemResult(item_id="0001", round=0, document_id="d", verdicts=verdicts))
    failure = Failure(cause=Cause.AUTH, detail="no key")
    batch.save_result(ItemResult(item_id="0002", round=0, failure=failure))
    page, numbers = written(batch)
    assert (numbers["score"]["value"], numbers["score"]["judged"], numbers["score"]["of"]) == (10.0, 1, 4)
    assert [item["score"] for item in numbers["items"]] == [10.0, None, None]
    assert numbers["failures"] == {"auth": 1, "provider_down": 1}
    assert "provider down" in page
    assert "HTTP 503" in page
    assert "no key" in page
    assert "Not written yet." in page
    assert "1 of 4" in page


def test_a_refusal_is_shown_and_counted_as_0(make: Make) -> None:
    batch = make({"r1": "One.", "r2": "Two."}, {"r1": "Three."}, {})
    refusal = Failure(cause=Cause.PROMPT_REFUSED, detail="not allowed here")
    batch.save_result(unwritten("0001", 0, refusal, ("r1", "r2")))
    batch.save_document("0002", document(P("x")))
    verdicts = {"r1": Refused(failure=refusal)}
    batch.save_result(ItemResult(item_id="0002", round=0, document_id="d", verdicts=verdicts))
    page, numbers = written(batch)
    assert numbers["refused"] == {"documents": 1, "points": 3}
    assert [item["score"] for item in numbers["items"]] == [0.0, 0.0, None]
    assert numbers["failures"] == {}
    assert "Refused, and counted as 0: 1 document, 3 of the numbers below." in page
    assert page.count("not allowed here") == 4  # the document's place and every criterion
    assert page.count('aria-label="0 of 2"') == 3


def test_nothing_judged_is_a_dash(make: Make) -> None:
    page, numbers = written(make({"r1": "One."}))
    assert numbers["score"]["value"] is None
    assert ">–<" in page
    assert "0.00" not in page


def test_a_reward_is_shown_by_its_terms_and_a_mask_by_its_cause(make: Make) -> None:
    batch = make({}, {})
    for item_id in ("0001", "0002"):
        batch.save_document(item_id, document(P("x")))
    judges: dict[str, JsonValue] = {"judge_text": "reader-235B", "judge_image": "rules"}
    score = Score(reward=0.5, breakdown={"r_num": 1.0, "L": 0.25, "judges": judges})
    batch.save_result(ItemResult(item_id="0001", round=0, document_id="d", score=score))
    masked = Score(reward=None, masked_by=(Failure(cause=Cause.QUOTA, detail="plan used up"),))
    batch.save_result(ItemResult(item_id="0002", round=0, document_id="d", score=masked))
    page, numbers = written(batch)
    assert (numbers["score"]["value"], numbers["score"]["judged"], numbers["score"]["of"]) == (0.5, 1, 2)
    assert numbers["terms"]["L"]["value"] == 0.25
    assert "plan used up" in page
    assert "image count" in page
    assert numbers["judges_that_spoke"] == ["reader-235B", "rules"]
    assert "Verdicts by reader-235B, rules." in page


def test_a_page_is_closed_and_shows_markup_as_text(make: Make) -> None:
    batch = make({"r1": "<script>alert(1)</script>"}, question="<img src=x onerror=alert(2)> a <image> b")
    batch.save_document("0001", document(P("<script>alert(3)</script> [x](javascript:alert(4))")))
    batch.save_result(
        ItemResult(item_id="0001", round=0, document_id="d", verdicts={"r1": judged(0, "<b>no</b>")})
    )
    page, _ = written(batch)
    assert "<script" not in page
    assert "<b>no</b>" not in page
    assert "onerror=alert(2)>" not in page
    assert "[picture]" in page
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'", page)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)


def test_a_folder_of_the_author_is_not_shown(make: Make, tmp_path: Path) -> None:
    batch = make({"r1": "One."})
    author = AuthorSettings(model="/somewhere/secret/tiny-vl")
    batch.create(batch.manifest().model_copy(update={"author": author}))
    page, _ = written(batch)
    assert "tiny-vl" in page
    assert "/somewhere" not in page


def test_a_batch_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such evaluation"):
        evaluation_page.write(Batch(str(tmp_path / "none")))


def test_a_result_of_an_earlier_round_never_replaces_a_later_one(make: Make) -> None:
    batch = make({"r1": "One."})
    later = ItemResult(item_id="0001", round=1, document_id="d", verdicts={"r1": judged(2)})
    batch.save_result(later)
    batch.save_result(ItemResult(item_id="0001", round=0, document_id="d", verdicts={"r1": missing()}))
    assert batch.result("0001") == later


def test_a_document_is_written_once(make: Make) -> None:
    batch = make({"r1": "One."})
    first = batch.save_document("0001", document(P("first")))
    assert batch.save_document("0001", document(P("second"))) == first
    assert batch.document("0001") == first
