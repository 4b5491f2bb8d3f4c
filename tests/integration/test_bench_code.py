"""`llmi bench code`, small: every number is measured."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageChops, ImageStat

from llmi.load.code_bench import WARM_PER_COLD, cold_chart, measure, warm_chart
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

pytestmark = pytest.mark.long


def test_both_ways_draw_the_same_picture() -> None:
    renderer = Renderer()
    try:
        images = [cold_chart(), warm_chart(renderer, CodeSettings(require=()))]
    finally:
        renderer.close()
    cold, warm = (Image.open(io.BytesIO(image)).convert("RGBA") for image in images)
    assert all(
        0 <= warm_size - cold_size <= 2 for warm_size, cold_size in zip(warm.size, cold.size, strict=True)
    )
    coarse = [image.crop((0, 0, *cold.size)).resize((64, 48), Image.Resampling.BOX) for image in (cold, warm)]
    assert max(ImageStat.Stat(ImageChops.difference(*coarse)).mean) < 2


def test_every_number_is_measured() -> None:
    said: list[str] = []
    numbers = measure(2, 1.0, lambda name, share, detail: said.append(name))
    assert (numbers.cold.n, numbers.chart.n, numbers.empty.n) == (2, 2 * WARM_PER_COLD, 2 * WARM_PER_COLD)
    assert numbers.cold.p50 > numbers.chart.p50 > numbers.empty.p50 > 0
    assert numbers.charts_per_s > numbers.cold_per_s > 0
    assert numbers.held.layers["landlock"]
    assert numbers.held.layers["seccomp"]
    assert len(numbers.document()["targets"]) == 3
    assert said
