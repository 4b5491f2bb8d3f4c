"""The published rules: image counts and required tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.rules import count_score, count_score_of_attempts, tool_score


@pytest.mark.parametrize(
    ("asked", "images", "expected"),
    [
        (-1, 0, 1.0),
        (-1, 1, 0.0),
        (0, 0, 1.0),
        (0, 7, 1.0),
        (99, 0, 0.0),
        (99, 1, 1.0),
        (99, 30, 1.0),
        (3, 0, 0.0),
        (3, 1, 1 / 3),
        (3, 3, 1.0),
        (3, 4, 0.7),
        (3, 5, 0.4),
        (3, 6, 0.1),
        (3, 7, 0.0),
        (3, 40, 0.0),
    ],
)
def test_count_score_is_the_published_one(asked: int, images: int, expected: float) -> None:
    assert count_score(asked, images) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("asked", "images", "expected"),
    [
        (3, 3, 1.0),
        (3, 2, 0.0),
        (3, 4, 0.0),
        (-1, 0, 1.0),
        (-1, 1, 0.0),
        (0, 2, 1.0),
        (99, 2, 1.0),
        (99, 0, 0.0),
    ],
)
def test_the_test_split_wants_an_exact_match(asked: int, images: int, expected: float) -> None:
    assert count_score(asked, images, "test") == expected


def test_another_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="image_num is -2"):
        count_score(-2, 0)


def test_failed_tags_fill_nothing_but_can_be_too_many() -> None:
    assert count_score_of_attempts(2, 1, 2) == 0.5
    assert count_score_of_attempts(2, 2, 3) == pytest.approx(0.7)
    assert count_score_of_attempts(99, 0, 3) == 0.0
    assert count_score_of_attempts(-1, 0, 1) == 0.0


@given(
    asked=st.one_of(st.just(-1), st.just(0), st.just(99), st.integers(1, 12)),
    attempts=st.integers(1, 15),
    data=st.data(),
    split=st.sampled_from(["train", "test"]),
)
def test_one_more_image_among_the_attempts_never_lowers_the_count(
    asked: int, attempts: int, data: st.DataObject, split: str
) -> None:
    images = data.draw(st.integers(0, attempts - 1))
    before = count_score_of_attempts(asked, images, attempts, split)
    assert 0 <= before <= count_score_of_attempts(asked, images + 1, attempts, split) <= 1


def test_tool_score_by_hand() -> None:
    assert tool_score((), ("code",), ("code",)) is None
    assert tool_score(("hammer",), (), ()) is None
    assert tool_score(("code",), (), ()) == 0.0
    assert tool_score(("code",), ("code",), ()) == 0.5
    assert tool_score(("code",), ("code", "search"), ("code",)) == 1.0
    # code weighs .4, diffusion .1: attempted both, only the chart came out: (.4 + .05) / .5
    assert tool_score(("code", "diffusion"), ("code", "diffusion"), ("code",)) == pytest.approx(0.9)
    # edit .3 and search .2; only the search was tried, and failed: .1 / .5
    assert tool_score(("edit", "search"), ("search",), ()) == pytest.approx(0.2)
