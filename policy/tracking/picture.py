"""A document as one picture: prompt, reward, text and images in order.

Invariants: the picture has bounded sides, whatever the document is; an image that cannot be read is a line
with the reason.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image, ImageDraw

from policy.document import Document, ImagePart, InvalidPart, TextPart
from policy.tracking.lettering import LINE, Lettering
from workers.errors import InfrastructureFault
from workers.messages import BlobRef
from workers.pixels import flattened
from workers.storage.blobs import MEDIA_TYPES, BlobStore

WIDTH, MARGIN = 640, 16
MOST_HEIGHT = 4000
MOST_CHARS = 6000  # of one text; the rest would be below the picture
IMAGE_SIDE = 320
_Block = tuple[str, str] | Image.Image  # a line and its colour, or an image
GREY, BLACK, RED = "#666666", "#111111", "#aa2222"


class Pictures:
    """Draws documents; the images are read from `blobs`."""

    def __init__(self, blobs: BlobStore):
        self._blobs = blobs
        self._lettering = Lettering()

    def draw(self, document: Document, title: str) -> Image.Image:
        """The document below a line `title` and its prompt."""
        placed: list[tuple[int, _Block]] = []
        height = MARGIN
        for block in self._blocks(document, title):
            size = LINE if isinstance(block, tuple) else block.height + MARGIN
            if height + size + LINE > MOST_HEIGHT:
                placed.append((height, ("…", GREY)))
                height += LINE
                break
            placed.append((height, block))
            height += size
        picture = Image.new("RGB", (WIDTH, height + MARGIN), "white")
        canvas = ImageDraw.Draw(picture)
        for top, block in placed:
            if isinstance(block, tuple):
                self._lettering.draw(canvas, (MARGIN, top + LINE * 0.75), *block)
            else:
                picture.paste(block, (MARGIN, top + MARGIN // 2))
        return picture

    def _blocks(self, document: Document, title: str) -> Iterator[_Block]:
        yield from self._lines(title, GREY)
        yield from self._lines(document.task.question, GREY)
        for ref in document.task.inputs:
            yield from self._image(ref)
        yield "", GREY
        for part in document.parts:
            if isinstance(part, TextPart):
                yield from self._lines(part.text.strip("\n"), BLACK)
            elif isinstance(part, InvalidPart):
                yield from self._lines(f"[invalid tag: {part.reason}]", RED)
            elif part.blob:
                yield from self._image(part.blob)
            else:
                yield from self._lines(_no_image(part), RED)

    def _lines(self, text: str, colour: str) -> Iterator[_Block]:
        shown = text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}…"
        for line in self._lettering.wrapped(shown, WIDTH - 2 * MARGIN):
            yield line, colour

    def _image(self, ref: BlobRef) -> Iterator[_Block]:
        try:
            with Image.open(io.BytesIO(self._blobs.get(ref)), formats=tuple(MEDIA_TYPES)) as image:
                image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
                yield flattened(image)
        except (InfrastructureFault, OSError, ValueError, Image.DecompressionBombError) as error:
            yield from self._lines(f"[image not read: {type(error).__name__}]", RED)


def _no_image(part: ImagePart) -> str:
    why = part.failure.cause.value.replace("_", " ") if part.failure else "not made"
    return f"[{part.tag.source}: {why}]"
