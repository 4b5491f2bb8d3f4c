"""A picture stays with its tag, whatever failed before it and wherever the text has `<image>`."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rewards_documents import F, I, P, X, document

from evaluation.pages.samples import Sample
from evaluation.pages.view import card
from policy.document import Document, Part
from rewards.judges.payloads import JudgeImagePayload
from rewards.judges.prompts import image_chat
from workers.messages import BlobRef
from workers.storage.blobs import BlobStore

QUESTION = "Explain <image> and <image>: what do they mean?"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(str(tmp_path_factory.mktemp("blobs")))


@pytest.fixture(scope="module")
def pictures(store: BlobStore) -> list[BlobRef]:
    """Four images that differ in width."""
    made = []
    for width in (20, 30, 40, 50):
        buffer = io.BytesIO()
        Image.new("RGB", (width, 20), "teal").save(buffer, "PNG")
        made.append(store.put(buffer.getvalue()))
    return made


def made_of(kinds: list[str], pictures: list[BlobRef]) -> Document:
    """A document of these kinds of part. Each image has a width of its own."""
    left = iter(pictures)
    parts: list[Part] = []
    for kind in kinds:
        if kind == "made":
            blob = next(left)
            parts.append(I(says=f"width {blob.width}", blob=blob))
        else:
            parts.append({"text": P("<image> as I said <image>"), "failed": F(), "invalid": X()}[kind])
    return document(*parts, question=QUESTION)


def shown_width(data_uri: str) -> int:
    return Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).width


KINDS = st.lists(st.sampled_from(["made", "text", "failed", "invalid"]), max_size=9).filter(
    lambda kinds: 1 <= kinds.count("made") <= 4
)


@settings(max_examples=100, deadline=None)
@given(KINDS)
def test_the_image_judge_sees_each_picture_under_its_own_tag(
    pictures: list[BlobRef], kinds: list[str]
) -> None:
    payload = JudgeImagePayload.of(made_of(kinds, pictures))
    content = image_chat(payload, lambda blob: f"width {blob.width}", max_images=9)[1]["content"]
    shown = [place for place, part in enumerate(content) if part["type"] == "image_url"]
    assert len(shown) == kinds.count("made")
    for place in shown:
        says = content[place - 1]["text"].splitlines()[-2]
        assert says == content[place]["image_url"]["url"]


@settings(max_examples=100, deadline=None)
@given(KINDS)
def test_the_page_shows_each_picture_under_its_own_tag(
    store: BlobStore, pictures: list[BlobRef], kinds: list[str]
) -> None:
    pieces = card(Sample(made_of(kinds, pictures), 1, 0.5, {}), store).pieces
    assert [piece.kind for piece in pieces] == [
        {"made": "image", "text": "text", "failed": "missing", "invalid": "missing"}[kind] for kind in kinds
    ]
    shown = [piece for piece in pieces if piece.kind == "image"]
    assert [piece.caption for piece in shown] == [f"width {shown_width(piece.src)}" for piece in shown]
