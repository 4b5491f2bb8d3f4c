"""Import the chart libraries, and draw a figure to pixels.

Invariants: a figure over the pixel limit is not rendered; a character without a glyph is an error, never a
box.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.sandbox.charts import fonts

if TYPE_CHECKING:
    from PIL import Image

# The libraries for chart code, by distribution; the prompt and docs/code.md name them with their versions.
LIBRARIES = ("matplotlib", "numpy", "pandas", "seaborn", "networkx", "pillow")
_ROUNDING = 0.01  # of a pixel: matplotlib rounds sizes down, and a size in inches may be slightly too small


class TooLarge(Exception):
    """The figures have more pixels than allowed."""


class NoFigure(Exception):
    """The code drew no figure with content."""


class MissingGlyphs(Exception):
    """The figures contain characters that no installed font has."""


class Warm(NamedTuple):
    """The loaded libraries: the global names for the code, and the fallback fonts."""

    names: dict[str, Any]
    fallback: fonts.Fallback


def warm() -> Warm:
    """Import the libraries and draw once, so that fonts, renderer and encoder are loaded."""
    import sys

    # pandas can do without; it starts a thread, and a process with threads must not fork.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.dates
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd
    import PIL.Image  # noqa: F401 - crops the figures
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
    """`plt.show` does nothing: the figures are collected afterwards."""


def picture(figure: Any, max_pixels: int, fallback: fonts.Fallback) -> Image.Image:
    """Draw the part of a figure that has content, as RGB or RGBA. Raises `TooLarge` or `MissingGlyphs`."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"savefig.bbox": None}):  # the code may have set it; cropping is done here
        drawn = _picture(figure, max_pixels)
    if missing := fallback.missing(figure):
        raise MissingGlyphs(fonts.explain(missing))
    return drawn


def _picture(figure: Any, max_pixels: int) -> Image.Image:
    """Draw the part of a figure that has content, with a margin.

    Draws a second time only if the content extends beyond the figure. (`savefig(bbox_inches="tight")` always
    draws twice, which is most of a chart's time.)
    """
    import matplotlib.pyplot as plt

    dpi = plt.rcParams["savefig.dpi"]
    if dpi == "figure":
        dpi = getattr(figure, "_original_dpi", figure.dpi)  # as matplotlib does itself (3.11)
    width, height = (int(side * dpi) for side in figure.get_size_inches())
    picture = _draw(figure, dpi, (width, height), max_pixels)
    figure.dpi = dpi  # so that extents in pixels have the resolution of the picture
    margin = plt.rcParams["savefig.pad_inches"]
    x0, y0, x1, y1 = figure.get_tightbbox().padded(margin).extents * dpi
    left, bottom, right, top = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    inside = left >= 0 and bottom >= 0 and right <= width and top <= height
    if inside and not figure.get_linewidth():  # a frame would be drawn around the part
        picture = picture.crop((left, height - top, right, height - bottom))
    else:
        figure.set_layout_engine("none")  # the layout was done when the extents were measured
        picture = _draw(figure, dpi, (right - left, top - bottom), max_pixels, (left, bottom))
    opaque = picture.getchannel("A").getextrema()[0] == 255
    return picture.convert("RGB") if opaque else picture


def _draw(
    figure: Any, dpi: float, size: tuple[int, int], max_pixels: int, start: tuple[int, int] | None = None
) -> Image.Image:
    """Draw `size` pixels of a figure, from its lower left corner or from `start`, as RGBA."""
    from matplotlib.transforms import Bbox
    from PIL import Image

    width, height = size
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels of a figure are more than the {max_pixels} that are left")
    box = start and Bbox.from_bounds(
        start[0] / dpi, start[1] / dpi, (width + _ROUNDING) / dpi, (height + _ROUNDING) / dpi
    )
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="raw", dpi=dpi, bbox_inches=box)
    except ValueError as error:
        if "Image size of" in str(error):  # matplotlib's error for a size over its renderer's limit
            raise TooLarge(str(error)) from error
        raise
    return Image.frombuffer("RGBA", size, buffer.getvalue(), "raw", "RGBA", 0, 1)


def shows(figure: Any) -> bool:
    """Whether a figure has more than empty axes."""
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
