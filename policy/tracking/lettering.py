"""Draw text in any script with Pillow, wrapped to a width.

Invariants: time is linear in the length of the text; a character without a font is drawn as a box.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import groupby

from PIL import ImageDraw, ImageFont

from workers.sandbox.charts.fonts import packaged

SIZE = 15
LINE = 21  # pixels from one line to the next
_FIRST = "NotoSans["  # the font of what most characters of a text are


class Lettering:
    """The fonts of this machine, opened when a character needs them."""

    def __init__(self) -> None:
        from matplotlib.ft2font import FT2Font

        files = sorted(map(str, packaged()), key=lambda path: _FIRST not in path)
        self._has = [FT2Font(path).get_charmap() for path in files]
        self._fonts = [functools.cache(functools.partial(ImageFont.truetype, path, SIZE)) for path in files]
        self._widths: dict[str, float] = {}

    def wrapped(self, text: str, width: int) -> Iterator[str]:
        """The lines of `text`, each at most `width` pixels wide; broken at spaces where it can be."""
        for paragraph in text.expandtabs(4).splitlines():
            line, used, space = "", 0.0, -1  # `space`: where the last space of the line is
            for char in paragraph:
                if used + self._width(char) > width and line:
                    cut = space if space > 0 else len(line)
                    yield line[:cut]
                    line = line[cut:].lstrip(" ")
                    used, space = sum(map(self._width, line)), -1
                if char == " ":
                    space = len(line)
                line, used = line + char, used + self._width(char)
            yield line

    def draw(self, canvas: ImageDraw.ImageDraw, place: tuple[float, float], line: str, fill: str) -> None:
        """Draw one line; `place` is the left end of its baseline."""
        x, y = place
        for number, chars in groupby(line, self._number):
            run = "".join(chars)
            canvas.text((x, y), run, fill=fill, font=self._fonts[number](), anchor="ls")
            x += sum(map(self._width, run))

    def _width(self, char: str) -> float:
        if char not in self._widths:
            self._widths[char] = self._fonts[self._number(char)]().getlength(char)
        return self._widths[char]

    def _number(self, char: str) -> int:
        """The number of the first font that has the character; 0 if none has."""
        return next((number for number, has in enumerate(self._has) if ord(char) in has), 0)
