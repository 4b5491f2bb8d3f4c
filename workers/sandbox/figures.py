"""Read the frame of a chart job: its figures, or why there are none.

Invariants:
- of what a child sends only pixels are used, if their number fits the size they claim;
- every image is encoded here, from pixels, and large enough for a judge;
- a frame that `drawing.draw` would not have written counts as tampering by the code.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from workers.errors import Cause, ModelFault
from workers.pixels import is_too_small
from workers.sandbox import protocol
from workers.sandbox.layers.limits import MEBIBYTE
from workers.settings import CodeSettings

_COMPRESSION = 1  # zlib level: two thirds of the time of the default, for some 15% more bytes
_CAUSES = {
    "empty": Cause.NO_FIGURE,
    "limit": Cause.CODE_LIMIT,
    "raised": Cause.CODE_RAISED,
    "glyphs": Cause.GLYPH_MISSING,
}
_Side = Annotated[int, Field(ge=1, lt=2**31)]


class Drawing(NamedTuple):
    """`images`: the figures that were kept, at least one, as PNG in order of creation.

    `drawn`: the number of all.
    """

    images: list[bytes]
    drawn: int


class _Report(BaseModel):
    """The header of a child's frame. Untrusted. `figures`: mode, width and height of each."""

    status: Literal["drawn", "empty", "limit", "raised", "glyphs"]
    detail: str = Field(default="", max_length=4000)
    figures: list[tuple[Literal["RGB", "RGBA"], _Side, _Side]] = Field(default=[], max_length=1000)
    drawn: int = Field(default=0, ge=0, lt=2**31)


def read_figures(frame: memoryview, settings: CodeSettings) -> Drawing:
    """The figures of a child's frame.

    Raises `ModelFault`: NO_FIGURE, GLYPH_MISSING, CODE_LIMIT or CODE_RAISED.
    """
    try:
        header, body = protocol.unpack(frame)
        report = _Report.model_validate(header)
    except (protocol.FrameError, ValidationError) as error:
        raise _tampered() from error
    if report.status != "drawn":
        raise ModelFault(_CAUSES[report.status], report.detail)
    images: list[bytes] = []
    for picture in _pictures(report, body, settings):
        images.append(_png(picture))
        if sum(map(len, images)) > settings.output_mb * MEBIBYTE:
            raise ModelFault(Cause.CODE_LIMIT, f"the figures take more than {settings.output_mb} MB as PNG")
    return Drawing(images, max(report.drawn, len(images)))


def _pictures(report: _Report, body: memoryview, settings: CodeSettings) -> Iterator[Image.Image]:
    """The figures one at a time, since each may be large; all sizes are checked before the first.

    Raises `ModelFault` if the first, which is the document's image, is too small or too oblong; others are
    skipped.
    """
    sizes = [width * height * len(mode) for mode, width, height in report.figures]
    pixels = sum(width * height for _, width, height in report.figures)
    honest = 0 < len(sizes) <= settings.max_figures and pixels <= settings.max_pixels
    if not honest or sum(sizes) != len(body):
        raise _tampered()
    start = 0
    for (mode, width, height), size in zip(report.figures, sizes, strict=True):
        # A judge would fail on such an image, and the sample would be masked.
        if not is_too_small(width, height):
            yield Image.frombytes(mode, (width, height), body[start : start + size])
        elif start == 0:
            raise ModelFault(
                Cause.CODE_LIMIT, f"a figure of {width} x {height} pixels is too small or too narrow"
            )
        start += size


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _tampered() -> ModelFault:
    return ModelFault(Cause.CODE_RAISED, "the code tampered with its result")
