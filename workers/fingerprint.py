"""A fingerprint of a picture: the mean colours of a grid of 8 by 8 cells. Equal for copies of one picture.

A copy of another size, quality or brightness differs by some levels in each cell; another photograph, and the
same scene in another light, by far more in at least one. A chart has no fingerprint: two charts may differ in
a thin line only, so they are compared by their bytes.

The library imagehash was not used: its hashes are of grey pictures, in which a scene by day and by night is
the same, and it needs SciPy and PyWavelets.
"""

from __future__ import annotations

import base64
import binascii
import io

from PIL import Image

from workers.pixels import flattened

GRID = 8
SAME = 14  # levels of 0 to 255; copies differed by up to 12, distinct pictures by at least 27
_FLAT = 0.3  # share of the pixels in one shade of grey, from which a picture counts as a chart
_SHADES = 64
_CHANGE_GRID = 16  # an edit may change a small part only
_CHANGED = 8


def fingerprint(image: Image.Image) -> str:
    """The fingerprint as base64, 256 characters; "" for a chart, a drawing on a plain ground or a blank."""
    shades = flattened(image).convert("L").resize((64, 64), Image.Resampling.NEAREST)
    counts = shades.point(lambda level: level * _SHADES // 256).histogram()
    if max(counts) > _FLAT * sum(counts):
        return ""
    return base64.b64encode(_cells(image, GRID)).decode()


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
    """Whether an edit changed nothing that can be seen. `after`: an image that this process encoded."""
    with Image.open(io.BytesIO(after), formats=("PNG", "JPEG")) as image:
        return _near(_cells(before, _CHANGE_GRID), _cells(image, _CHANGE_GRID), _CHANGED)


def _cells(image: Image.Image, grid: int) -> bytes:
    return flattened(image).resize((grid, grid), Image.Resampling.BOX).tobytes()


def _near(one: bytes, other: bytes, most: int) -> bool:
    """Whether no cell differs by more than `most` levels in any colour."""
    return all(abs(a - b) <= most for a, b in zip(one, other, strict=True))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
