"""Matplotlib and its friends, warm, in the zygote; and a figure as pixels.

Invariants: nothing is rendered that exceeds the pixel limit; a character without a glyph is an error, never a
box.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.sandbox.charts import fonts

if TYPE_CHECKING:
    from PIL import Image

# What code may rely on, by distribution; the policy's prompt and docs/code.md name them with their versions.
LIBRARIES = ("matplotlib", "numpy", "pandas", "seaborn", "networkx", "pillow")
_LESS = 0.01  # of a pixel: matplotlib rounds sizes down, and a size in inches may be a hair too small


class TooLarge(Exception):
    """The figures have too many pixels."""


class Nothing(Exception):
    """The code drew nothing."""


class MissingGlyphs(Exception):
    """The figures hold characters that no installed font has."""


class Warm(NamedTuple):
    """What the zygote has loaded: the names that code finds, and the fonts."""

    names: dict[str, Any]
    fallback: fonts.Fallback


def warm() -> Warm:
    """Import the libraries and draw once, so that a job finds fonts, renderer and encoder loaded."""
    import sys

    # Optional to pandas, but it starts a thread, and a process with threads must not fork.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.dates
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd
    import PIL.Image  # noqa: F401 - what a picture is cut with
    import seaborn as sns

    plt.rcParams["axes.unicode_minus"] = False
    plt.show = _show
    fallback = fonts.Fallback()
    fallback.install()
    figure, axes = plt.subplots()
    axes.plot([1, 2], label="x")
    axes.set_title(r"$\frac{\alpha}{2}$")
    axes.legend(title="x", title_fontproperties={"weight": "bold"})
    _picture(figure, 10**6)
    sns.barplot(x=["a", "b"], y=[1, 2], ax=axes)
    pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2000", periods=2)).plot(ax=plt.subplots()[1])
    plt.savefig(io.BytesIO(), format="png")
    plt.close("all")
    return Warm({"plt": plt, "np": np, "pd": pd, "sns": sns, "matplotlib": matplotlib}, fallback)


def _show(*_args: object, **_kwargs: object) -> None:
    """The code asks to look at its figures; the runner collects them anyway."""


def picture(figure: Any, max_pixels: int, fallback: fonts.Fallback) -> Image.Image:
    """The part of a figure that shows something, as RGB or RGBA. Raises `TooLarge` or `MissingGlyphs`."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"savefig.bbox": None}):  # the code may have set it; what is cut off is decided here
        drawn = _picture(figure, max_pixels)
    if missing := fallback.missing(figure):
        raise MissingGlyphs(fonts.explain(missing))
    return drawn


def _picture(figure: Any, max_pixels: int) -> Image.Image:
    """The part of a figure that shows something, with a margin; drawn again only where that reaches beyond
    the figure. (`savefig(bbox_inches="tight")` always draws twice, which is most of a chart's time.)
    """
    import matplotlib.pyplot as plt

    dpi = plt.rcParams["savefig.dpi"]
    if dpi == "figure":
        dpi = getattr(figure, "_original_dpi", figure.dpi)  # as matplotlib has it
    width, height = (int(side * dpi) for side in figure.get_size_inches())
    picture = _draw(figure, dpi, (width, height), max_pixels)
    figure.dpi = dpi  # what is measured in pixels must be measured at the same resolution
    margin = plt.rcParams["savefig.pad_inches"]
    x0, y0, x1, y1 = figure.get_tightbbox().padded(margin).extents * dpi
    left, bottom, right, top = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    inside = left >= 0 and bottom >= 0 and right <= width and top <= height
    if inside and not figure.get_linewidth():  # a frame is drawn around what is cut out
        picture = picture.crop((left, height - top, right, height - bottom))
    else:
        figure.set_layout_engine("none")  # it has laid out what was measured
        picture = _draw(figure, dpi, (right - left, top - bottom), max_pixels, (left, bottom))
    opaque = picture.getchannel("A").getextrema()[0] == 255
    return picture.convert("RGB") if opaque else picture


def _draw(
    figure: Any, dpi: float, size: tuple[int, int], max_pixels: int, start: tuple[int, int] | None = None
) -> Image.Image:
    """`size` pixels of a figure from its lower left corner, or from `start`, as RGBA."""
    from matplotlib.transforms import Bbox
    from PIL import Image

    width, height = size
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels of a figure are more than the {max_pixels} that are left")
    box = start and Bbox.from_bounds(
        start[0] / dpi, start[1] / dpi, (width + _LESS) / dpi, (height + _LESS) / dpi
    )
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="raw", dpi=dpi, bbox_inches=box)
    except ValueError as error:
        if "Image size of" in str(error):  # how matplotlib refuses what its renderer cannot hold
            raise TooLarge(str(error)) from error
        raise
    return Image.frombuffer("RGBA", size, buffer.getvalue(), "raw", "RGBA", 0, 1)


def shows(figure: Any) -> bool:
    """Whether a figure holds more than empty axes."""
    own = (figure.texts, figure.lines, figure.patches, figure.images, figure.legends, figure.artists)
    if any(own) or any(shows(part) for part in figure.subfigs):
        return True
    return any(
        axes.has_data()
        or axes.texts
        or axes.tables
        or axes.artists
        or axes.images
        or axes.patches
        or axes.lines
        for axes in figure.axes
    )
