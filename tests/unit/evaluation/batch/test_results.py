"""From verdicts to a score, by hand-worked examples and properties: what is missing is never a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.batch.results import (
    ItemResult,
    Missing,
    Refused,
    failures,
    unwritten,
)
from evaluation.batch.summary import mean, overall, terms
from evaluation.rubric.verdict import Judgement
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure


def judged(*scores: int) -> dict[str, Judgement]:
    return {f"r{n}": Judgement(score=score, reason="so", judge="j") for n, score in enumerate(scores, 1)}


def missing(cause: Cause = Cause.PROVIDER_DOWN) -> Missing:
    return Missing(failure=Failure(cause=cause), attempts=3)


def result(verdicts: dict, item_id: str = "1") -> ItemResult:
    return ItemResult(item_id=item_id, round=0, document_id="d", verdicts=verdicts)


def test_an_items_score_by_hand() -> None:
    # 2, 1, 0 and 2 of 2: (1 + 0.5 + 0 + 1) / 4 of ten.
    one = result(judged(2, 1, 0, 2))
    assert mean(one.points, 4).value == pytest.approx(6.25)


def test_the_overall_score_is_over_all_judged_criteria() -> None:
    # Item one: 2 and 2; item two: 0, with one criterion missing: (10 + 10 + 0) / 3, 3 of 4 judged.
    two = result({**judged(0), "r2": missing()})
    score = overall([result(judged(2, 2)).points, two.points], 4)
    assert score.value == pytest.approx(20 / 3)
    assert (score.judged, score.of) == (3, 4)


def test_nothing_judged_is_no_number() -> None:
    one = result({"r1": missing()})
    assert overall([one.points], 1) == overall([], 1)
    assert overall([one.points], 1).value is None
    assert overall([one.points], 1).low is None


def test_the_interval_is_that_of_items_and_the_same_every_time() -> None:
    items = [[10.0, 10.0], [0.0, 0.0]]  # resampled whole: means are 0, 5 or 10, and never 2.5
    score = overall(items, 4)
    assert (score.low, score.value, score.high) == (0.0, 5.0, 10.0)
    assert overall(items, 4) == score


def test_one_item_has_no_interval() -> None:
    assert overall([[10.0, 5.0]], 2).low is None


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=10), min_size=1, max_size=6), st.data())
def test_a_missing_criterion_never_changes_a_mean(scores: list[list[int]], data: st.DataObject) -> None:
    items = [result(judged(*row)) for row in scores]
    at = data.draw(st.integers(0, len(items) - 1))
    spoilt = list(items)
    spoilt[at] = result({**items[at].verdicts, "r99": missing()})
    of = sum(len(row) for row in scores)
    before = overall([one.points for one in items], of)
    after = overall([one.points for one in spoilt], of + 1)
    assert (after.value, after.low, after.high) == (before.value, before.low, before.high)
    assert (after.judged, after.of) == (before.judged, before.of + 1)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=10))
def test_a_score_lies_between_0_and_10(scores: list[int]) -> None:
    value = mean(result(judged(*scores)).points, len(scores)).value
    assert value is not None
    assert 0 <= value <= 10


@pytest.mark.parametrize("score", [-1, 3, True, 1.0])
def test_no_score_but_0_1_and_2_exists(score: object) -> None:
    with pytest.raises(ValueError):
        Judgement.model_validate({"score": score, "reason": "so", "judge": "j"})


def test_complete_means_that_nothing_is_left_to_do() -> None:
    assert result(judged(0, 2)).complete
    assert not result({**judged(2), "r2": missing()}).complete
    assert not result({}).complete
    failed = result(judged(2)).model_copy(update={"failure": Failure(cause=Cause.WORKER_LOST)})
    assert not failed.complete


def test_a_masked_reward_is_missing_and_a_reward_is_one_point() -> None:
    masked = Score(reward=None, masked_by=(Failure(cause=Cause.TIMEOUT),))
    one = ItemResult(item_id="1", round=0, score=masked)
    other = ItemResult(item_id="2", round=0, score=Score(reward=0.5))
    assert one.points == []
    assert not one.complete
    assert other.points == [0.5]
    assert other.complete
    assert failures([one, other]) == {"timeout": 1}


def test_causes_are_counted_most_frequent_first() -> None:
    down = result({"r1": missing(), "r2": missing(), "r3": missing(Cause.QUOTA)})
    gone = ItemResult(item_id="2", round=0, failure=Failure(cause=Cause.AUTH))
    assert list(failures([down, gone]).items()) == [("provider_down", 2), ("auth", 1), ("quota", 1)]


def test_terms_are_means_over_the_documents_that_have_them() -> None:
    scores = [
        Score(reward=1.0, breakdown={"L": 1.0, "M": 0.5, "counts": {"images": 1}, "exact": True}),
        Score(reward=0.5, breakdown={"L": 0.5}),
        Score(reward=None, masked_by=(Failure(cause=Cause.TIMEOUT),)),
    ]
    found = terms(scores)
    assert set(found) == {"L", "M"}
    assert (found["L"].value, found["L"].judged, found["L"].of) == (0.75, 2, 2)
    assert (found["M"].value, found["M"].judged, found["M"].of) == (0.5, 1, 2)


REFUSED = Failure(cause=Cause.PROMPT_REFUSED, detail="not allowed")


@pytest.mark.parametrize(("criteria", "points"), [(("r1", "r2"), [0.0, 0.0]), ((), [0.0])])
def test_an_author_that_refuses_scores_0_and_is_done(criteria: tuple[str, ...], points: list[float]) -> None:
    one = unwritten("1", 0, REFUSED, criteria)
    again = ItemResult.model_validate_json(one.model_dump_json())
    for result in (one, again):
        assert (result.points, result.refused) == (points, len(points))
        assert result.complete
        assert result.unwritten
        assert failures([result]) == {}


def test_an_author_that_infrastructure_kept_from_writing_is_missing() -> None:
    gone = ItemResult(item_id="1", round=0, failure=Failure(cause=Cause.PROVIDER_DOWN))
    assert (gone.points, gone.refused, gone.complete, gone.unwritten) == ([], 0, False, False)


def test_a_criterion_that_the_judge_refuses_for_its_content_counts_0() -> None:
    one = result({**judged(2), "r2": Refused(failure=REFUSED)})
    assert (one.points, one.refused) == ([10.0, 0.0], 1)
    assert one.complete
    assert not one.unwritten


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=5))
def test_refusing_an_item_never_raises_the_score(scores: list[list[int]]) -> None:
    items = [result(judged(*row)) for row in scores]
    of = sum(len(row) for row in scores)
    before = overall([one.points for one in items], of)
    refused = [unwritten("1", 0, REFUSED, items[0].verdicts), *items[1:]]
    after = overall([one.points for one in refused], of)
    assert before.value is not None
    assert after.value is not None
    assert after.value <= before.value
    assert after.judged == before.judged
