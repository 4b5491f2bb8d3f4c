"""Documents shortened for judges, and payloads that fit into a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewards_documents import BLOB, F, I, P, X, document

from evaluation.payloads import RubricPayload
from evaluation.settings import RubricSettings
from policy.document import Document, InvalidPart
from rewards.judges import shorten
from rewards.judges.parts import ShownCut, ShownImage, ShownInvalid, ShownTag, ShownText
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.prompts import text_chat
from workers.broker.posting import prepare
from workers.messages import Request

WORST = ("\x01", "\\", "🦆", "鹭", "a")


def sent(doc: Document) -> list[str]:
    """Every message that judges of `doc` are sent."""
    payloads = {
        "judge_text": JudgeTextPayload.of(doc),
        "judge_image": JudgeImagePayload.of(doc),
        "judge_rubric": RubricPayload.of(doc, "It is short.", RubricSettings()),
    }
    return [
        prepare(Request.make(kind, payload, timeout_s=60), "r", 0.0).message
        for kind, payload in payloads.items()
    ]


@pytest.mark.parametrize("character", WORST)
def test_every_request_for_a_judge_fits_into_a_message(character: str) -> None:
    long = character * 1_500_000
    for doc in (
        document(P(long), I()),
        document(I(says=long)),
        document(I(), InvalidPart(index=0, raw=long, reason="r")),
        document(P("x"), I(), question=long),
        document(P(long), I(), P(long), X(), I(), question=long),
    ):
        assert all(sent(doc))


def test_many_small_parts_fit_too() -> None:
    doc = document(I()).model_copy(update={"parts": (I(), *[P("x"), X()] * 5_000)})
    assert all(sent(doc))


def test_an_ordinary_document_is_sent_whole() -> None:
    doc = document(P("A heron. " * 10_000), I("code", "x" * 20_000), F(), X(), question="why " * 1000)
    text, image = JudgeTextPayload.of(doc), JudgeImagePayload.of(doc)
    for payload in (text, image):
        assert payload.question == doc.task.question
        assert len(payload.parts) == len(doc.parts)
    assert isinstance(text.parts[0], ShownText)
    assert text.parts[0].text == "A heron. " * 10_000


def test_the_rule_keeps_the_beginning_the_images_and_one_broken_tag() -> None:
    doc = document(P("a" * 30_000), I(), X(), X(), P("the end"), I(says="b" * 500), inputs=(BLOB,))
    short = shorten.for_judge(JudgeImagePayload.of(doc))
    kinds = [type(part) for part in short.parts]
    assert kinds == [ShownText, ShownImage, ShownInvalid, ShownImage, ShownCut]
    first, *_, last = short.parts
    assert isinstance(first, ShownText)
    assert isinstance(last, ShownCut)
    assert last.characters == 30_000 - len(first.text) + len(X().raw + X().reason) + len("the end")
    assert shorten.for_judge(short).parts[-1].type == "cut"
    assert 10_000 < len(first.text) < shorten.SHORT_BYTES
    assert set(first.text) == {"a"}
    assert [len(image.tag.description) for image in short.images] == [12, shorten.DESCRIPTION]
    assert short.inputs == ()
    read = shorten.for_judge(JudgeTextPayload.of(doc))
    assert [type(part) for part in read.parts] == [ShownText, ShownInvalid, ShownCut]
    assert not any(isinstance(part, ShownTag) for part in read.parts)


def test_a_short_document_is_halved_so_that_asking_again_makes_sense() -> None:
    whole = JudgeTextPayload.of(document(P("a" * 2_000)))
    short = shorten.for_judge(whole)
    assert (
        500 < len(text_chat(short)[1]["content"]) - len(text_chat(document_less(whole))[1]["content"]) < 1200
    )


def document_less(payload: JudgeTextPayload) -> JudgeTextPayload:
    return shorten.without_document(payload)


def test_nothing_of_the_document_is_left_in_the_last_question() -> None:
    bare = shorten.without_document(JudgeImagePayload.of(document(P("secret"), I(), inputs=(BLOB,))))
    assert (bare.parts, bare.inputs) == ((), ())


@given(st.text(), st.integers(-5, 60), st.sampled_from([shorten.utf8, shorten.escaped]))
def test_a_cut_is_the_longest_beginning_that_fits(text: str, room: int, size: shorten.Size) -> None:
    kept = shorten.cut(text, room, size)
    assert text.startswith(kept)
    assert size(kept) <= max(room, 0)
    assert kept == text or size(text[: len(kept) + 1]) > room
