"""The published rules: image counts and required tools."""

from __future__ import annotations

import pytest

from rewards.rules import count_score, tool_score


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
@pytest.mark.parametrize("split", ["test", "val", "validation", ""])
def test_every_split_but_train_wants_an_exact_match(
    asked: int, images: int, expected: float, split: str
) -> None:
    assert count_score(asked, images, split) == expected


def test_another_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="image_num is -2"):
        count_score(-2, 0)


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
