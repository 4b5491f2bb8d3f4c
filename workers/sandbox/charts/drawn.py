"""The figures that code has drawn: those it left open, and those it saved.

Invariants: figures that show something are kept in order of creation, up to a limit, and all are counted; one
that is closed or empty at the end counts as it was when it was saved.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from workers.sandbox.charts import fonts
from workers.sandbox.charts import style as charts

if TYPE_CHECKING:
    from PIL import Image


class Saved:
    """Figures as they were when the code saved them, in `max_pixels` together."""

    def __init__(self, fallback: fonts.Fallback, max_pixels: int):
        self._fallback, self._max_pixels = fallback, max_pixels
        self._pictures: dict[Any, Image.Image | Exception] = {}  # or why there is none

    def install(self) -> None:
        """From now on keep every figure that is saved in this process, and number all."""
        from matplotlib.figure import Figure

        kind: Any = Figure
        start, save, count = kind.__init__, kind.savefig, itertools.count()

        def begin(figure: Any, *args: Any, **kwargs: Any) -> None:
            figure.llmi_order = next(count)  # its number is given again once it is closed
            start(figure, *args, **kwargs)

        def savefig(figure: Any, *args: Any, **kwargs: Any) -> None:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # as of /tmp or /mnt/data
                save(figure, *args, **kwargs)
            kind.savefig = save  # keeping it saves, too
            try:
                self._keep(figure)
            finally:
                kind.savefig = savefig

        kind.__init__, kind.savefig = begin, savefig

    def besides(self, figures: list[Any]) -> list[Any]:
        """The saved figures that are not among `figures`."""
        return [figure for figure in self._pictures if figure not in figures]

    def picture(self, figure: Any, max_pixels: int) -> Image.Image:
        """The figure as it is, or as it was saved where it has not changed since or shows nothing any more.
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
            figure.dpi = dpi  # the code goes on with the figure that it had
            figure.set_layout_engine(engine)
            figure.stale = False


def figures(saved: Saved, max_figures: int, max_pixels: int) -> tuple[list[Image.Image], int]:
    """The first `max_figures` figures, as RGB or RGBA, as many as have `max_pixels` together, and how many
    there are. Raises `Nothing` without one, `MissingGlyphs`, and `TooLarge` where the first has more pixels.
    """
    import matplotlib.pyplot as plt

    still = [figure for figure in map(plt.figure, plt.get_fignums()) if charts.shows(figure)]
    drawn = sorted([*still, *saved.besides(still)], key=lambda figure: getattr(figure, "llmi_order", -1))
    if not drawn:
        raise charts.Nothing("the code left no figure with anything in it, and saved none by savefig")
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
