"""A document as a picture: everything is in it, in order, and its size is bounded."""

from __future__ import annotations

import functools
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rewards_documents import F, I, P, X, document

from policy.tracking import picture
from policy.tracking.lettering import Lettering
from policy.tracking.picture import MARGIN, MOST_HEIGHT, WIDTH, Pictures
from workers.storage.blobs import BlobStore

BLUE = (30, 90, 200)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return BlobStore(str(tmp_path_factory.mktemp("blobs")))


@pytest.fixture(scope="module")
def pictures(store):
    return Pictures(store)


@pytest.fixture(scope="module")
def blue(store):
    data = io.BytesIO()
    Image.new("RGB", (800, 400), BLUE).save(data, "PNG")
    return store.put(data.getvalue())


@functools.cache
def lettering():
    """One for all examples: opening the fonts takes a while."""
    return Lettering()


def inked_rows(image, colour=None):
    """The rows with a pixel of `colour`, or with any that is not white."""
    pixels = image.load()
    wanted = (lambda pixel: pixel == colour) if colour else (lambda pixel: pixel != (255, 255, 255))
    return [y for y in range(image.height) if any(wanted(pixels[x, y]) for x in range(image.width))]


def test_text_and_images_are_drawn_in_order(pictures, blue):
    with_image = pictures.draw(document(P("before"), I(blob=blue), P("after")), "step 1")
    rows = inked_rows(with_image, BLUE)
    assert len(rows) == 160  # 800x400 becomes 320x160
    assert rows == list(range(rows[0], rows[-1] + 1))
    ink = inked_rows(with_image)
    assert min(ink) < rows[0]
    assert max(ink) > rows[-1]


def test_title_prompt_and_each_part_take_room(pictures):
    title = pictures.draw(document(), "step 1").height
    for part in (P("text"), F("search"), X(), I("code")):  # the last has no blob in the store
        assert pictures.draw(document(part), "step 1").height > title


def test_an_image_that_cannot_be_read_is_named(pictures, monkeypatch):
    lines = []
    draw = Lettering.draw
    monkeypatch.setattr(Lettering, "draw", lambda *args: (lines.append(args[3]), draw(*args)))
    pictures.draw(document(I("code"), X(), F("search")), "step 1")
    assert lines[-3:] == [
        "[image not read: BlobMissing]",
        "[invalid tag: not a dictionary]",
        "[search: prompt refused]",
    ]


def test_the_longest_document_has_a_bounded_picture(pictures, blue):
    parts = [part for _ in range(40) for part in (P("a word " * 500), I(blob=blue))]
    image = pictures.draw(document(*parts), "step 1")
    assert image.width == WIDTH
    assert image.height <= MOST_HEIGHT + MARGIN


@pytest.mark.parametrize("text", ["漢字かな", "한국어", "العربية", "ไทย", "🙂→✓"])
def test_text_of_any_script_is_drawn_and_not_as_a_box(text):
    made = lettering()
    assert all(ord(char) in made._has[made._number(char)] for char in text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(60, 400))
def test_wrapping_keeps_every_character_and_the_width(text, width):
    lines = list(lettering().wrapped(text, width))
    kept = "".join("".join(lines).split())
    assert kept == "".join(text.expandtabs(4).split())
    for line in lines:
        assert len(line) <= 1 or sum(map(lettering()._width, line)) <= width


def test_a_text_beyond_the_picture_is_not_laid_out(pictures, monkeypatch):
    seen, wrapped = [], Lettering.wrapped

    def count(self, text, width):
        seen.append(len(text))
        return wrapped(self, text, width)

    monkeypatch.setattr(Lettering, "wrapped", count)
    pictures.draw(document(P("x" * 1_000_000)), "step 1")
    assert max(seen) == picture.MOST_CHARS + 1
