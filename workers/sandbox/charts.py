"""Matplotlib and its friends, warm, in the zygote; and the figures that code has drawn, as PNG.

Invariants: open figures that show something are kept in order of creation, up to a limit, and all are
counted; a figure without content
does not count; nothing is rendered that exceeds the pixel limit.
"""

from __future__ import annotations

import io
import struct
from typing import Any

# Tried after the usual fonts, so that every script the machine has a font for can be drawn.
_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "SimHei", "Microsoft YaHei",
    "PingFang SC", "Arial Unicode MS",
)  # fmt: skip
_COMPRESSION = 1  # of zlib: the same pixels in two thirds of the time, and some 15% more bytes


class TooLarge(Exception):
    """The figures exceed a limit on their number of pixels or bytes."""


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
    import PIL.PngImagePlugin  # noqa: F401 - what savefig would import
    import seaborn as sns

    plt.rcParams["axes.unicode_minus"] = False
    plt.show = _show
    figure, axes = plt.subplots()
    axes.plot([1, 2], label="x")
    axes.set_title(r"$\frac{\alpha}{2}$")
    axes.legend()
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")
    sns.barplot(x=["a", "b"], y=[1, 2], ax=axes)
    pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2000", periods=2)).plot(ax=plt.subplots()[1])
    plt.savefig(io.BytesIO(), format="png")
    plt.close("all")
    return {"plt": plt, "np": np, "pd": pd, "sns": sns, "matplotlib": matplotlib}


def _show(*_args: object, **_kwargs: object) -> None:
    """The code asks to look at its figures; the runner collects them anyway."""


def figures(max_figures: int, max_pixels: int, max_bytes: int) -> tuple[list[bytes], int]:
    """The first `max_figures` open figures, as PNG, and how many there are. Raises `Nothing` without one and
    `TooLarge` beyond a limit on pixels or bytes.
    """
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    known = {entry.name for entry in font_manager.fontManager.ttflist}
    families = list(plt.rcParams["font.sans-serif"])
    extra = [name for name in _FALLBACK_FONTS if name in known and name not in families]
    plt.rcParams["font.sans-serif"] = [name for name in families if name in known] + extra or families
    drawn = [figure for figure in map(plt.figure, plt.get_fignums()) if _shows(figure)]
    if not drawn:
        raise Nothing("the code left no open figure with anything in it")
    images: list[bytes] = []
    for figure in drawn[:max_figures]:
        width, height = figure.get_size_inches() * figure.dpi
        if width * height > max_pixels:
            raise TooLarge(f"a figure of {width:.0f} x {height:.0f} pixels; at most {max_pixels} are allowed")
        images.append(_png(figure, max_pixels))
        if sum(map(len, images)) > max_bytes:
            raise TooLarge(f"more than {max_bytes} bytes of images")
    return images, len(drawn)


def _png(figure: Any, max_pixels: int) -> bytes:
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="png", bbox_inches="tight", pil_kwargs={"compress_level": _COMPRESSION})
    except ValueError as error:
        if "Image size of" in str(error):  # how matplotlib refuses what its renderer cannot hold
            raise TooLarge(str(error)) from error
        raise
    data = buffer.getvalue()
    width, height = dimensions(data)  # things drawn far outside make the tight box larger than the figure
    if width * height > max_pixels:
        raise TooLarge(f"an image of {width} x {height} pixels; at most {max_pixels} are allowed")
    return data


def dimensions(png: bytes) -> tuple[int, int]:
    """Width and height that a PNG's header states, in pixels. Raises `ValueError` when it is no PNG."""
    if len(png) < 24 or png[:8] != b"\x89PNG\r\n\x1a\n" or png[12:16] != b"IHDR":
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


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
