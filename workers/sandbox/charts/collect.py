"""Collect the figures that code drew: those it left open, and those it saved.

Invariants: figures with content are kept in order of creation, up to a limit, and all of them are counted; a
figure that is closed or empty at the end is kept as it was when the code saved it.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from workers.sandbox.charts import fonts
from workers.sandbox.charts import style as charts

if TYPE_CHECKING:
    from PIL import Image


class SavedFigures:
    """The figures that the code saved, as they were then, of `max_pixels` in total."""

    def __init__(self, fallback: fonts.Fallback, max_pixels: int):
        self._fallback, self._max_pixels = fallback, max_pixels
        self._pictures: dict[Any, Image.Image | Exception] = {}  # or why it was not kept

    def install(self) -> None:
        """Patch matplotlib to number every figure of this process, and to keep those that the code saves."""
        from matplotlib.figure import Figure

        kind: Any = Figure
        start, save, count = kind.__init__, kind.savefig, itertools.count()

        def begin(figure: Any, *args: Any, **kwargs: Any) -> None:
            figure.llmi_order = next(count)  # matplotlib reuses the number of a closed figure
            start(figure, *args, **kwargs)

        def savefig(figure: Any, *args: Any, **kwargs: Any) -> None:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # such as /tmp or /mnt/data
                save(figure, *args, **kwargs)
            kind.savefig = save  # `_keep` calls it too
            try:
                self._keep(figure)
            finally:
                kind.savefig = savefig

        kind.__init__, kind.savefig = begin, savefig

    def besides(self, figures: list[Any]) -> list[Any]:
        """The saved figures that are not in `figures`."""
        return [figure for figure in self._pictures if figure not in figures]

    def picture(self, figure: Any, max_pixels: int) -> Image.Image:
        """Draw the figure; use the saved state if it has not changed since, or is empty now.

        Raises `TooLarge` or `MissingGlyphs`.
        """
        kept = self._pictures.get(figure)
        if kept is None or (figure.stale and charts.shows(figure)):
            return charts.picture(figure, max_pixels, self._fallback)
        if isinstance(kept, Exception):
            raise kept
        if kept.width * kept.height > max_pixels:
            raise charts.TooLarge(f"a saved figure has more than the {max_pixels} pixels that are left")
        return kept

    def _keep(self, figure: Any) -> None:
        if not charts.shows(figure):
            return
        others = [kept for other, kept in self._pictures.items() if other is not figure]
        used = sum(kept.width * kept.height for kept in others if not isinstance(kept, Exception))
        dpi, engine = figure.dpi, figure.get_layout_engine()
        try:
            self._pictures[figure] = charts.picture(figure, self._max_pixels - used, self._fallback)
        except (charts.TooLarge, charts.MissingGlyphs) as error:
            self._pictures[figure] = error
        finally:
            figure.dpi = dpi  # drawing must not change the figure
            figure.set_layout_engine(engine)
            figure.stale = False


def figures(saved: SavedFigures, max_figures: int, max_pixels: int) -> tuple[list[Image.Image], int]:
    """The first figures as RGB or RGBA, and the number of all.

    Keeps at most `max_figures`, and as many as fit in `max_pixels` together. Raises `NoFigure` if there is
    none, `MissingGlyphs`, and `TooLarge` if the first has too many pixels.
    """
    import matplotlib.pyplot as plt

    open_figures = [figure for figure in map(plt.figure, plt.get_fignums()) if charts.shows(figure)]
    drawn = sorted(
        [*open_figures, *saved.besides(open_figures)], key=lambda figure: getattr(figure, "llmi_order", -1)
    )
    if not drawn:
        raise charts.NoFigure("the code left no figure with anything in it, and saved none by savefig")
    pictures: list[Image.Image] = []
    for figure in drawn[:max_figures]:
        left = max_pixels - sum(picture.width * picture.height for picture in pictures)
        try:
            pictures.append(saved.picture(figure, left))
        except charts.TooLarge:
            if not pictures:
                raise
            break
    return pictures, len(drawn)
