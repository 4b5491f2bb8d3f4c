"""Images of the blob store as data URIs, small enough for a page.

Invariants: an image is encoded again, without metadata, unless it is already small and Pillow decodes it; an
image that cannot be read is None, never an exception.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from workers.errors import InfrastructureFault
from workers.messages import BlobRef
from workers.storage.blobs import MEDIA_TYPES, BlobStore

MAX_SIDE = 1024
KEEP_BYTES = 150_000


def data_uri(blobs: BlobStore, ref: BlobRef) -> str | None:
    """The image as a `data:` URI, at most `MAX_SIDE` pixels a side; None when it is missing or broken."""
    try:
        data = blobs.get(ref)
        with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:
            image.load()
            if len(data) <= KEEP_BYTES and max(image.size) <= MAX_SIDE and not image.info.get("exif"):
                return _uri(ref.media_type, data)
            image.thumbnail((MAX_SIDE, MAX_SIDE))
            out = io.BytesIO()
            image.convert("RGBA" if "A" in image.getbands() else "RGB").save(out, "WEBP", quality=82)
    except (InfrastructureFault, OSError, ValueError, Image.DecompressionBombError):
        return None
    return _uri("image/webp", out.getvalue())


def data_uris(blobs: BlobStore, refs: Sequence[BlobRef]) -> list[str]:
    """Those of `refs` that can be read, as `data_uri`."""
    return [uri for uri in (data_uri(blobs, ref) for ref in refs) if uri]


def _uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
