"""Fingerprints: copies of a picture are the same, 500 distinct charts, cards and pictures are not."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from drawn_pictures import SIZE, card, chart, copies, jpeg, photograph, plotted
from PIL import Image, ImageDraw

from llmi.demo.drawn.scenes import draw
from llmi.demo.library import scenes
from workers import pixels
from workers.fingerprint import fingerprint, of_encoded, same_picture, unchanged

STEPS = ("plan your garden", "sow some seeds", "water the beds", "pull the weeds", "harvest")


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    """The demo's library: 8 cities in 8 lights each, and 8 animals in 8 places each."""
    return [draw(scene, (192, 144), 0) for scene in scenes(0)]


def test_500_distinct_charts_cards_and_pictures_are_not_the_same(drawn: list[Image.Image]) -> None:
    pictures = drawn + [photograph(seed) for seed in range(122)]
    charts = [chart(seed) for seed in range(240)]
    charts += [card(f"Step {number}: {text}") for number, text in enumerate(STEPS)]
    charts += [card(text, ("#f0e0d0", "#705030")) for text in STEPS]
    found = [fingerprint(image) for image in pictures + charts]
    assert len({image.tobytes() for image in pictures + charts}) == len(found) == 500
    assert not any(itertools.starmap(same_picture, itertools.combinations(found, 2)))
    assert all(found[: len(pictures)]), "a picture has a fingerprint"
    assert not any(found[len(pictures) :]), "charts and cards are compared by their bytes"


def test_a_copy_is_the_same_picture(drawn: list[Image.Image]) -> None:
    for image in [*drawn[::8], *map(photograph, range(20))]:
        own = fingerprint(image)
        for name, copy in copies(image).items():
            assert same_picture(own, fingerprint(copy)), name


@pytest.mark.parametrize("lossy", [False, True])
def test_an_encoded_image_has_the_fingerprint_of_its_pixels(lossy: bool) -> None:
    image = photograph(1).resize((900, 700))
    assert same_picture(of_encoded(pixels.encoded(image, lossy=lossy)), fingerprint(image))


def test_transparency_is_white_in_a_fingerprint() -> None:
    image = photograph(1).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    assert fingerprint(image) == fingerprint(pixels.flattened(image))


@pytest.mark.parametrize("broken", ["", "AAAA", "not base64", "=" * 256])
def test_a_missing_or_malformed_fingerprint_is_like_no_other(broken: str) -> None:
    assert not same_picture(broken, fingerprint(photograph(1)))
    assert not same_picture(broken, "")


def test_an_edit_that_only_encodes_the_picture_again_changed_nothing(drawn: list[Image.Image]) -> None:
    noise = np.random.default_rng(0)
    for image in [*drawn[::16], photograph(3), chart(0), chart(1)]:
        noisy = np.clip(np.asarray(image, dtype=float) + noise.normal(0, 3, (*image.size[::-1], 3)), 0, 255)
        assert unchanged(image, pixels.encoded(image, lossy=True))
        assert unchanged(image, pixels.encoded(Image.fromarray(noisy.astype(np.uint8))))
        assert unchanged(image, pixels.encoded(image.resize((512, 384), Image.Resampling.BICUBIC)))


def test_an_edit_of_a_small_part_is_a_change() -> None:
    rng = random.Random(0)
    for image in (photograph(2), chart(0), chart(2)):
        edited = image.copy()
        x, y = rng.randrange(40, 240), rng.randrange(40, 180)
        ImageDraw.Draw(edited).ellipse([x, y, x + 12, y + 12], fill="#c03030")
        assert not unchanged(image, pixels.encoded(edited))
    titled = chart(0)
    ImageDraw.Draw(titled).text((120, 5), "Sales by month", fill="black")
    assert not unchanged(chart(0), pixels.encoded(titled))


@pytest.mark.parametrize(
    "edited",
    [plotted("Costs in 2024"), plotted("Sales in 2025"), plotted("Sales in 2024", threshold=True)],
    ids=["title", "digit", "line"],
)
def test_new_lettering_and_thin_lines_of_a_chart_are_a_change(edited: Image.Image) -> None:
    before = plotted("Sales in 2024")
    assert not unchanged(before, pixels.encoded(edited))
    for quality in (95, 85, 75):
        assert unchanged(edited, pixels.encoded(jpeg(edited, quality)))
        assert not unchanged(before, pixels.encoded(jpeg(edited, quality)))
