"""The published formula by hand, and what holds for both formulas; the axioms of `grounded` are apart."""

from __future__ import annotations

from typing import get_args

import pytest
from grades import image, text, value
from hypothesis import given
from hypothesis import strategies as st
from rewards_documents import BLOB, F, I, P, X, document

from llmi.tools import Source
from policy.document import Document, Part
from rewards import formulas
from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict
from workers.errors import Cause, Fault

grounded, llmi = formulas.get("grounded").score, formulas.get("llmi").score


# The published formula, by hand.


@pytest.mark.parametrize(
    ("parts", "task", "read", "looked", "vl", "expected"),
    [
        # two of two, all fives
        ((P("x"), I(), I()), {"image_num": 2}, text(5, 5), image(5, 5, 5), False, 1.0),
        # all ones: only the count is left
        ((P("x"), I()), {"image_num": 1}, text(1, 1), image(1, 1, 1), False, 0.2),
        # all fours: .2 + .3*.75 + .5*.75
        ((P("x"), I()), {"image_num": 1}, text(4, 4), image(4, 4, 4), False, 0.8),
        # one of two, text 5, tags 3, images 2,3,4: r=.5, M=.5, L=((7+1.8)/2-1)/4=.85
        ((P("x"), I()), {"image_num": 2}, text(5, 3), image(2, 3, 4), False, 0.1 + 0.075 + 0.425),
        # the same for a model that reads images: L=((7.5+1.5)/2-1)/4=.875
        ((P("x"), I()), {"image_num": 2}, text(5, 3), image(2, 3, 4), True, 0.1 + 0.075 + 0.4375),
        # images only: Text = 1, L = ((1.4 + .6*5)/2 - 1)/4 = .3
        ((I(),), {"image_num": 1}, text(5, 5), image(5, 5, 5), False, 0.2 + 0.3 + 0.15),
        # 11 images: M from 1,1,1
        ((P("x"), *[I()] * 11), {"image_num": 0}, text(5, 5), None, False, 0.2 + 0.5),
        # 10 images are still looked at
        ((P("x"), *[I()] * 10), {"image_num": 0}, text(5, 5), image(5, 5, 5), False, 1.0),
        # invalid tags do not count
        ((P("x"), I(), X()), {"image_num": 1}, text(5, 5), image(5, 5, 5), False, 1.0),
        # and so do failed ones: of two asked for one came out, r=.5
        ((P("x"), I(), F()), {"image_num": 2}, text(5, 5), image(5, 5, 5), False, 0.1 + 0.15 + 0.5),
        # 11 tags, one failed: c = 10, so they are looked at, and 10 of 11 are there: r=10/11
        (
            (P("x"), *[I()] * 10, F()),
            {"image_num": 11},
            text(5, 5),
            image(4, 4, 4),
            False,
            (0.2 + 0.3 * 0.75) * 10 / 11 + 0.5,
        ),
        # c = 10 there too where 10 were asked for: r=1
        ((P("x"), *[I()] * 10, F()), {"image_num": 10}, text(5, 5), image(5, 5, 5), False, 1.0),
        # 11 of 10 came out: r=.7, M from 1,1,1
        ((P("x"), *[I()] * 11), {"image_num": 10}, text(5, 5), None, False, 0.14 + 0.5),
        # on the test split one too few earns nothing for images
        ((P("x"), I()), {"image_num": 2, "split": "test"}, text(5, 5), image(5, 5, 5), False, 0.5),
    ],
)
def test_llmi_by_hand(
    parts: tuple[Part, ...],
    task: dict[str, object],
    read: TextVerdict,
    looked: ImageVerdict | None,
    vl: bool,
    expected: float,
) -> None:
    assert value(llmi(Facts.of(document(*parts, **task)), read, looked, vl=vl)) == pytest.approx(expected)


# Where the released code goes wrong.


def test_a_literal_image_without_any_tool_earns_nothing() -> None:
    for wanted in (1, 99):
        fake = Facts.of(document(P("A heron. <image> <image>"), image_num=wanted))
        for formula in (llmi, grounded):
            assert formula(fake, text(5, 5), None).breakdown["r_num"] == 0.0
    honest = Facts.of(document(P("A heron."), image_num=1))
    assert grounded(fake, text(5, 5), None).reward == grounded(honest, text(5, 5), None).reward


def test_a_literal_image_is_no_prose() -> None:
    assert not Facts.of(document(P(" <image>\n<image>"), I())).has_text


def test_failing_every_tool_scores_below_success() -> None:
    read, looked = text(4, 4), image(4, 4, 4)
    failed = Facts.of(document(P("x"), F(), F(), image_num=0))
    made = Facts.of(document(P("x"), I(), I(), image_num=0))
    assert value(llmi(failed, read, None)) == pytest.approx(0.875), "the hole, as published"
    assert value(llmi(made, read, looked)) == pytest.approx(0.80)
    assert value(grounded(failed, read, None)) == pytest.approx(0.2 + 0.5 * 0.7 * 0.75)
    assert value(grounded(made, read, looked)) == pytest.approx(0.80)


def test_invalid_tags_are_attempts() -> None:
    facts = Facts.of(document(P("x"), X(), I(), F()))
    assert (facts.images, facts.failed, facts.invalid, facts.attempts) == (1, 1, 1, 3)


# Properties of the grounded formula.

SOURCES = get_args(Source)
MODEL_CAUSES = [cause for cause in Cause if cause.fault is Fault.MODEL]
AXIS = st.integers(1, 5)
TEXTS = st.builds(text, AXIS, AXIS)
LOOKS = st.builds(image, AXIS, AXIS, AXIS)
PARTS = st.one_of(
    st.just(P("words")),
    st.sampled_from(SOURCES).map(I),
    st.builds(F, st.sampled_from(SOURCES), st.sampled_from(MODEL_CAUSES)),
    st.just(X()),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    return document(
        *draw(st.lists(PARTS, max_size=13)),
        image_num=draw(st.sampled_from([-1, 0, 1, 2, 3, 5, 99])),
        tools=tuple(draw(st.lists(st.sampled_from(SOURCES), max_size=3))),
        split=draw(st.sampled_from(["train", "test"])),
    )


@given(documents(), TEXTS, LOOKS, st.sampled_from(["grounded", "llmi"]), st.booleans())
def test_every_reward_is_bounded_and_explained(
    doc: Document, read: TextVerdict, looked: ImageVerdict, formula: str, vl: bool
) -> None:
    facts, chosen = Facts.of(doc), formulas.get(formula)
    score = chosen.score(facts, read, looked if chosen.needs_image_verdict(facts) else None, vl=vl)
    assert 0 <= value(score) <= 1
    assert {"formula", "r_num", "L", "M", "tools", "weights", "axes", "verdicts", "counts"} <= set(
        score.breakdown
    )


@given(documents(), TEXTS, LOOKS)
def test_the_breakdown_adds_up_to_the_reward(doc: Document, read: TextVerdict, looked: ImageVerdict) -> None:
    score = grounded(Facts.of(doc), read, looked)
    made = score.breakdown
    weights = made["weights"]
    total = sum(
        weight * made[term] * (made["r_num"] if term == "M" else 1) for term, weight in weights.items()
    )
    assert value(score) == pytest.approx(total / sum(weights.values()))


@given(documents(), TEXTS, LOOKS, st.randoms())
def test_the_order_of_parts_does_not_matter_to_the_sum(
    doc: Document, read: TextVerdict, looked: ImageVerdict, random: object
) -> None:
    parts = list(doc.parts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    shuffled = document(*parts, **doc.task.model_dump())
    assert grounded(Facts.of(shuffled), read, looked) == grounded(Facts.of(doc), read, looked)


def test_images_without_a_verdict_are_an_error_and_not_a_number() -> None:
    facts = Facts.of(document(P("x"), I(blob=BLOB), image_num=1))
    for formula in (llmi, grounded):
        with pytest.raises(ValueError, match="verdict"):
            formula(facts, text(5, 5), None)
