"""Matplotlib and its friends, warm, in the zygote; and the figures that code has drawn, as pixels.

Invariants: open figures that show something are kept in order of creation, up to a limit, and all are
counted; a figure without content
does not count; nothing is rendered that exceeds the pixel limit.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

# Tried after the usual fonts, so that every script the machine has a font for can be drawn.
_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "SimHei", "Microsoft YaHei",
    "PingFang SC", "Arial Unicode MS",
)  # fmt: skip
_LESS = 0.01  # of a pixel: matplotlib rounds sizes down, and a size in inches may be a hair too small


class TooLarge(Exception):
    """The figures have too many pixels."""


class Nothing(Exception):
    """The code drew nothing."""


def warm() -> dict[str, Any]:
    """Import the libraries and draw once, so that a job finds fonts, renderer and encoder loaded. Returns
    its names.
    """
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
    figure, axes = plt.subplots()
    axes.plot([1, 2], label="x")
    axes.set_title(r"$\frac{\alpha}{2}$")
    axes.legend()
    _picture(figure, 10**6)
    sns.barplot(x=["a", "b"], y=[1, 2], ax=axes)
    pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2000", periods=2)).plot(ax=plt.subplots()[1])
    plt.savefig(io.BytesIO(), format="png")
    plt.close("all")
    return {"plt": plt, "np": np, "pd": pd, "sns": sns, "matplotlib": matplotlib}


def _show(*_args: object, **_kwargs: object) -> None:
    """The code asks to look at its figures; the runner collects them anyway."""


def figures(max_figures: int, max_pixels: int) -> tuple[list[Image.Image], int]:
    """The first `max_figures` open figures, as RGB or RGBA, as many as have `max_pixels` together, and how
    many there are. Raises `Nothing` without one, and `TooLarge` where the first has more.
    """
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    known = {entry.name for entry in font_manager.fontManager.ttflist}
    families = list(plt.rcParams["font.sans-serif"])
    extra = [name for name in _FALLBACK_FONTS if name in known and name not in families]
    plt.rcParams["font.sans-serif"] = [name for name in families if name in known] + extra or families
    plt.rcParams["savefig.bbox"] = None  # the code may have set it; what is cut off is decided here
    drawn = [figure for figure in map(plt.figure, plt.get_fignums()) if _shows(figure)]
    if not drawn:
        raise Nothing("the code left no open figure with anything in it")
    pictures: list[Image.Image] = []
    for figure in drawn[:max_figures]:
        left = max_pixels - sum(picture.width * picture.height for picture in pictures)
        try:
            pictures.append(_picture(figure, left))
        except TooLarge:
            if not pictures:
                raise
            break
    return pictures, len(drawn)


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


def _shows(figure: Any) -> bool:
    """Whether a figure holds more than empty axes."""
    own = (figure.texts, figure.lines, figure.patches, figure.images, figure.legends, figure.artists)
    if any(own) or any(_shows(part) for part in figure.subfigs):
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
