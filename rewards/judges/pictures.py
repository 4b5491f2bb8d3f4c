"""Images for a served judge: scaled down, without transparency, as data URIs.

Invariants: never enlarged; proportions kept; a JPEG that is small enough is sent unchanged. Raises
InfrastructureFault: BLOB_MISSING for an image that is gone, BAD_ANSWER for one that cannot be decoded.
"""

from __future__ import annotations

import base64
import io

from PIL import Image

from workers import images
from workers.messages import BlobRef
from workers.pixels import JPEG_QUALITY, scaled_down
from workers.storage.blobs import BlobStore

BLANK_SIDE = 56


def data_uri(blobs: BlobStore, ref: BlobRef, max_pixels: int) -> str:
    """The image with at most `max_pixels` pixels, as `data:image/jpeg;base64,...`."""
    data = blobs.get(ref)
    if ref.media_type != "image/jpeg" or ref.width * ref.height > max_pixels:
        return jpeg_uri(data, max_pixels)
    return _uri(data)


def jpeg_uri(data: bytes, max_pixels: int) -> str:
    """`data_uri` for an encoded image of any size and type."""
    return _uri(_jpeg(scaled_down(images.rgb(data), max_pixels)))


def blank_uri() -> str:
    """A grey picture that any vision model can read."""
    return _uri(_jpeg(Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), "grey")))


def _jpeg(image: Image.Image) -> bytes:
    """JPEG with full colour resolution, which keeps thin coloured lines of charts."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
