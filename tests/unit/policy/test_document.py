"""The document: what counts as text, as an image and as an attempt."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from policy.document import Document, Task
from policy.grammar.tags import read
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Outcome, Success

BLOB = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
SEARCH = "<imgen>{'source': 'search', 'description': 'd', 'params': {'query': 'q'}}</imgen>"


def document(text: str) -> Document:
    return Document(rollout_id="r", task=Task(question="q"), parts=read(text, inputs=0))


def test_invalid_tags_are_attempts_but_no_images():
    made = document(f"a{SEARCH}b<imgen>x</imgen>c")
    assert (len(made.images), len(made.invalid), made.attempts) == (1, 1, 2)


def test_the_text_of_a_document_holds_no_tags():
    assert document(f" a {SEARCH}\n<imgen>x</imgen>b ").text == "a \nb"


def test_a_literal_image_placeholder_is_text_and_no_image():
    made = document("see <image> here")
    assert (made.attempts, made.text) == (0, "see <image> here")


def test_an_image_part_shows_its_blob_only_on_success():
    part = document(SEARCH).images[0]
    outcome = Outcome(request_id="1", kind="search", result=Success(images=(BLOB,)))
    failed = Outcome(request_id="1", kind="search", result=Failure(cause=Cause.NO_HIT))
    assert part.blob is None
    assert part.model_copy(update={"outcome": outcome}).blob == BLOB
    assert part.model_copy(update={"outcome": failed}).blob is None
    assert part.model_copy(update={"outcome": failed}).failure.cause is Cause.NO_HIT


def test_a_document_survives_json():
    made = document(f"a{SEARCH}<imgen>x</imgen>")
    assert Document.model_validate_json(made.model_dump_json()) == made


def test_a_document_with_an_unknown_field_is_refused():
    with pytest.raises(ValidationError):
        Document.model_validate({"rollout_id": "r", "task": {"question": "q"}, "parts": [], "images": []})


def test_half_a_character_of_a_question_or_an_author_does_not_keep_it_from_being_stored():
    """Regression: JSON can contain one and UTF-8 cannot, so ledger and batch could not store the document."""
    made = Document(rollout_id="r", task=Task(question="a fox \ud83e"), parts=(), extra={"author": "m\ud83e"})
    kept = Document.model_validate_json(made.model_dump_json())
    assert (kept.task.question, kept.extra) == ("a fox \ufffd", {"author": "m\ufffd"})
