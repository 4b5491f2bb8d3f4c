"""Which images of a document add nothing to it."""

from __future__ import annotations

import pytest
from drawn_pictures import chart, copies, photograph
from rewards_documents import BLOB, F, I, P, X, document

from rewards.facts import Facts
from rewards.repeats import wasted
from workers.fingerprint import fingerprint

HERON, NEST = fingerprint(photograph(1)), fingerprint(photograph(2))
OTHER = BLOB.model_copy(update={"sha256": "b" * 64})


def test_distinct_images_add_something() -> None:
    parts = (
        P("x"),
        I("search", fingerprint=HERON),
        I("search", fingerprint=NEST),
        I("code"),
        I("code"),
        F(),
        X(),
    )
    assert wasted(document(*parts)) == {}


def test_the_second_of_two_equal_images_is_a_repeat_of_whatever_tool() -> None:
    parts = (P("x"), I("code", blob=BLOB), F(), I("search", blob=BLOB), I("code", blob=BLOB))
    assert wasted(document(*parts)) == {2: "repeated", 3: "repeated"}


@pytest.mark.parametrize("how", copies(photograph(1)))
def test_a_copy_of_a_found_or_generated_image_is_a_repeat(how: str) -> None:
    copy = fingerprint(copies(photograph(1))[how])
    parts = (I("search", fingerprint=HERON), I("diffusion", fingerprint=copy))
    assert wasted(document(*parts)) == {1: "repeated"}


def test_charts_are_compared_by_their_bytes() -> None:
    assert fingerprint(chart(0)) == ""
    assert wasted(document(I("code"), I("code"), I("code", blob=OTHER), I("code", blob=OTHER))) == {
        3: "repeated"
    }


def test_an_image_of_the_task_adds_nothing() -> None:
    assert wasted(document(I("edit", blob=BLOB), I("edit"), inputs=(BLOB,))) == {0: "repeated"}


def test_an_edit_without_effect_adds_nothing_and_a_slight_one_does() -> None:
    """A slight edit has nearly the fingerprint of its picture, and is compared by bytes."""
    parts = (I("search", fingerprint=HERON), I("edit", unchanged=True), I("edit"))
    assert wasted(document(*parts)) == {1: "unchanged"}


def test_a_tool_whose_images_add_nothing_has_not_succeeded() -> None:
    parts = (I("search", blob=BLOB), I("edit", unchanged=True), I("code", blob=BLOB), X(too_many=True), X())
    facts = Facts.of(document(*parts))
    assert (facts.images, facts.new, facts.repeated, facts.unchanged) == (3, 1, 1, 1)
    assert (facts.invalid, facts.too_many, facts.attempts) == (2, 1, 5)
    assert facts.attempted == ("code", "edit", "search")
    assert facts.succeeded == ("search",)


def test_counts_that_no_document_can_have_are_refused() -> None:
    for counts in ({"images": 1, "repeated": 2}, {"invalid": 1, "too_many": 2}):
        with pytest.raises(ValueError, match="more images"):
            Facts(image_num=1, **counts)
