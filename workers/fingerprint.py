"""A fingerprint of a picture: the mean colours of a grid of 8 by 8 cells. Equal for copies of one picture.

A copy of another size, quality or brightness differs by some levels in each cell; another photograph, and the
same scene in another light, by far more in at least one. A picture on a plain or smooth ground (a chart, a
card with a text) has no fingerprint: two of them may differ in a thin line or in the words only, so they are
compared by their bytes. A page full of text on a gradient still has one.

The library imagehash was not used: its hashes are of grey pictures, in which a scene by day and by night is
the same, and it needs SciPy and PyWavelets.
"""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image, ImageChops

from workers.pixels import flattened

GRID = 8
SAME = 14  # levels of 0 to 255; copies differed by up to 12, distinct pictures by at least 27
_FLAT = 0.3  # share of the pixels in one shade of grey, from which the ground is plain
_SHADES = 64
_SMOOTH, _BEND = 0.8, 1  # share of pixels without detail: of cards at least 0.89, of scenes at most 0.75
# An edit may change a small part only. Without a fingerprint, a recompressed chart differed by up to 27
# levels in a cell of 4 by 4 pixels, one with another digit or a thin line by at least 33.
_CHANGE_GRID, _CHANGED = 16, 8
_FINE_CELL, _FINELY_CHANGED = 4, 30


def fingerprint(image: Image.Image) -> str:
    """The fingerprint as base64, 256 characters; "" for a picture on a plain or smooth ground, or a blank."""
    if _is_plain(image) or _is_smooth(image):
        return ""
    return base64.b64encode(_cells(image, (GRID, GRID)).tobytes()).decode()


def of_encoded(data: bytes) -> str:
    """The fingerprint of an image that this process encoded; untrusted bytes are decoded in the jail only."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        image.draft("RGB", (8 * GRID, 8 * GRID))  # of a JPEG, decode no more than is needed
        return fingerprint(image)


def same_picture(one: str, other: str) -> bool:
    """Whether two fingerprints are those of copies of one picture. False where either is "" or malformed."""
    a, b = _decoded(one), _decoded(other)
    return bool(a) and len(a) == len(b) and _near(a, b, SAME)


def unchanged(before: Image.Image, after: bytes) -> bool:
    """Whether an edit changed nothing that can be seen. `after`: an image that this process encoded.

    A picture without a fingerprint, edited at its own size, is compared in fine cells: a new digit of a chart
    is a change. Else the cells are coarse, since a model that edits changes every detail of a picture.
    """
    with Image.open(io.BytesIO(after), formats=("PNG", "JPEG")) as image:
        grid, most = (_CHANGE_GRID, _CHANGE_GRID), _CHANGED
        if image.size == before.size and not fingerprint(before):
            width, height = (max(_CHANGE_GRID, side // _FINE_CELL) for side in image.size)
            grid, most = (width, height), _FINELY_CHANGED
        return _near(_cells(before, grid).tobytes(), _cells(image, grid).tobytes(), most)


def _is_plain(image: Image.Image) -> bool:
    """Whether one shade of grey covers much of the picture."""
    shades = flattened(image).convert("L").resize((64, 64), Image.Resampling.NEAREST)
    counts = shades.point(lambda level: level * _SHADES // 256).histogram()
    return max(counts) > _FLAT * sum(counts)


def _is_smooth(image: Image.Image) -> bool:
    """Whether most of the picture is a gradient, which has many shades and no detail."""
    grey = _cells(image, (64, 64)).convert("L")

    def bend(dx: int, dy: int) -> Image.Image:
        """How far each pixel is from the mean of its two neighbours."""
        one, other = ImageChops.offset(grey, dx, dy), ImageChops.offset(grey, -dx, -dy)
        return ImageChops.difference(grey, Image.blend(one, other, 0.5))

    counts = ImageChops.lighter(bend(1, 0), bend(0, 1)).crop((1, 1, 63, 63)).histogram()
    return sum(counts[: _BEND + 1]) > _SMOOTH * sum(counts)


def _cells(image: Image.Image, grid: tuple[int, int]) -> Image.Image:
    """The mean colours of a grid of cells, as a picture."""
    return flattened(image).resize(grid, Image.Resampling.BOX)


def _near(one: bytes, other: bytes, most: int) -> bool:
    """Whether no cell differs by more than `most` levels in any colour."""
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
