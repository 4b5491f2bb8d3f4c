"""The formula `grounded` by hand, and the orderings that it must keep."""

from __future__ import annotations

import pytest
from grades import image, text, value
from rewards_documents import BLOB, F, I, P, X, document

from policy.document import Part
from rewards import formulas
from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict

grounded, llmi = formulas.get("grounded"), formulas.get("llmi")
SAME = I(blob=BLOB)


def reward(*parts: Part, read: TextVerdict, looked: ImageVerdict | None = None, **task: object) -> float:
    return value(grounded.score(Facts.of(document(*parts, **task)), read, looked))


def good(*parts: Part, **task: object) -> float:
    """The reward if all grades are 4."""
    return reward(*parts, read=text(4, 4), looked=image(4, 4, 4), **task)


ALL5 = {"read": text(5, 5), "looked": image(5, 5, 5)}


@pytest.mark.parametrize(
    ("parts", "task", "grades", "expected"),
    [
        # all as requested: the published formula, .2 + .3*.75 + .5*.75
        ((P("x"), I()), {"image_num": 1}, {"read": text(4, 4), "looked": image(4, 4, 4)}, 0.8),
        # any number, no image: M and tags are 3, .2 + .3*.5 + .5*(.7*1 + .3*.5)
        ((P("x"),), {"image_num": 0}, ALL5, 0.775),
        # but a tool is required: M = T = 0 and tags are 1, (.2 + .35) / 1.2
        ((P("x"),), {"image_num": 0, "tools": ("code",)}, ALL5, 0.55 / 1.2),
        # no prose and no image
        ((), {"image_num": 0}, ALL5, 0.0),
        ((), {"image_num": -1}, ALL5, 0.0),
        # no prose: L = (.7*0 + .3*1)
        ((I(),), {"image_num": 1}, ALL5, 0.2 + 0.3 + 0.15),
        # none allowed, none there: (.2 + .5) / .7
        ((P("x"),), {"image_num": -1}, ALL5, 1.0),
        # none allowed, one there: prose only
        ((P("x"), I()), {"image_num": -1}, ALL5, 0.35),
        # one due, none there: prose only
        ((P("x"),), {"image_num": 1}, ALL5, 0.35),
        ((P("x"),), {"image_num": 99}, ALL5, 0.35),
        # one due, one failed: and the token
        ((P("x"), F()), {"image_num": 1}, ALL5, 0.37),
        ((P("x"), F()), {"image_num": 99}, ALL5, 0.37),
        ((P("x"), X()), {"image_num": 1}, ALL5, 0.35),
        # one of two: r = .5, tags .5
        ((P("x"), I()), {"image_num": 2}, ALL5, 0.1 + 0.15 + 0.35 + 0.075),
        # one of two, the other failed: M = .7, tags .5 * .7
        ((P("x"), I(), F()), {"image_num": 2}, ALL5, 0.1 + 0.105 + 0.35 + 0.0525),
        # one of four, another failed: M = .75, tags .25 * .75
        ((P("x"), I(), F()), {"image_num": 4}, ALL5, 0.05 + 0.3 * 0.75 * 0.25 + 0.35 + 0.15 * 0.1875),
        # two for one: r = .7
        ((P("x"), I(), I()), {"image_num": 1}, ALL5, 0.14 + 0.21 + 0.5),
        # thirteen for twelve: r = 1 - 1/12
        ((P("x"), *[I()] * 13), {"image_num": 12}, ALL5, 0.5 * 11 / 12 + 0.5),
        # eleven and one refused for twelve: r = 11/12, tags 11/12
        ((P("x"), *[I()] * 11, X(too_many=True)), {"image_num": 12}, ALL5, 0.35 + 0.65 * 11 / 12),
        # eleven where the number is free: M = 0
        ((P("x"), *[I()] * 11), {"image_num": 0}, {"read": text(5, 5)}, 0.7),
        # the required tool
        ((P("x"), I("code")), {"image_num": 1, "tools": ("code",)}, ALL5, 1.0),
        ((P("x"), I()), {"image_num": 1, "tools": ("code",)}, ALL5, 1 / 1.2),
        ((P("x"), F("code")), {"image_num": 1, "tools": ("code",)}, ALL5, 0.37 / 1.2),
        # a repeat counts like a failed tag; an edit without effect too, and it is no use of the tool
        ((P("x"), SAME, SAME), {"image_num": 2}, ALL5, 0.1 + 0.105 + 0.35 + 0.0525),
        (
            (P("x"), I(), I("edit", unchanged=True)),
            {"image_num": 2, "tools": ("edit",)},
            ALL5,
            (0.1 + 0.105 + 0.35 + 0.0525) / 1.2,
        ),
    ],
)
def test_by_hand(
    parts: tuple[Part, ...], task: dict[str, object], grades: dict[str, object], expected: float
) -> None:
    assert reward(*parts, **grades, **task) == pytest.approx(expected)  # type: ignore[arg-type]


# Orderings that the formula had wrong.


@pytest.mark.parametrize("prose", [1, 3, 5])
@pytest.mark.parametrize("images", range(1, 11))
def test_abstaining_earns_nothing_where_images_are_free(prose: int, images: int) -> None:
    none = reward(P("x"), read=text(prose, 5), image_num=0)
    for grade in (4, 5):
        drawn = [I()] * images
        looked = image(grade, grade, grade)
        assert reward(P("x"), *drawn, read=text(prose, grade), looked=looked, image_num=0) > none


def test_the_same_tag_three_times_is_worse_than_once() -> None:
    assert good(P("x"), SAME, SAME, SAME, image_num=3) < good(P("x"), SAME, image_num=3)
    assert good(P("x"), SAME, SAME, I(), image_num=3) < good(P("x"), SAME, I(), image_num=3)


def test_a_tag_that_fails_earns_a_token_once() -> None:
    none, one, two = (good(P("x"), *[F()] * n, image_num=3) for n in range(3))
    assert none == pytest.approx(0.2625)
    assert one - none == pytest.approx(0.02)
    assert two <= one
    assert good(P("x"), I(), F(), image_num=3) < good(P("x"), I(), image_num=3)


def test_a_failure_cannot_be_diluted() -> None:
    assert good(P("x"), *[SAME] * 9, F(), image_num=0) < good(P("x"), SAME, F(), image_num=0)
    assert good(P("x"), *[I()] * 9, F(), image_num=0) == good(P("x"), I(), F(), image_num=0)


@pytest.mark.parametrize("asked", [11, 12, 20])
def test_what_was_requested_scores_above_less_also_beyond_ten(asked: int) -> None:
    scores = [good(P("x"), *[I()] * made, image_num=asked) for made in range(asked + 1)]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    refused = [X(too_many=True)] * (asked - 11)
    assert good(P("x"), *[I()] * 11, *refused, image_num=asked) == pytest.approx(scores[11])


def test_each_required_tool_has_a_place() -> None:
    task = {"image_num": 1, "tools": ("search", "code")}
    one, both = good(P("x"), I("search"), **task), good(P("x"), I("search"), I("code"), **task)
    assert one < both == pytest.approx((0.8 + 0.2) / 1.2)
    assert good(P("x"), I("search"), I("code"), I(), **task) < both
    assert good(P("x"), I("search"), I("search"), **task) < both
    forbidden = {"image_num": -1, "tools": ("search",)}
    assert good(P("x"), I("search"), **forbidden) < good(P("x"), **forbidden)


@pytest.mark.parametrize("split", ["val", "test", "validation", "evaluation"])
def test_the_published_number_is_exact_on_every_split_but_train(split: str) -> None:
    task = {"image_num": 3, "split": split}
    facts = Facts.of(document(P("x"), I(), **task))
    assert value(llmi.score(facts, text(1, 3), image(1, 3, 1))) == pytest.approx(0.075)


@pytest.mark.parametrize("made", range(4))
def test_the_split_does_not_matter_to_the_grounded_formula(made: int) -> None:
    trained, tested = (good(P("x"), *[I()] * made, image_num=2, split=split) for split in ("train", "test"))
    assert trained == tested
