"""The blob store: image bytes once, under their SHA-256, in a folder or at any fsspec URL.

Invariants: written atomically (a reader sees all of a blob or nothing); verified on read; the type and the
size in pixels are taken from the bytes, never from a name. Layout: `<url>/<first two hex digits>/<sha256>`.
"""

from __future__ import annotations

import hashlib
import io
import uuid

import fsspec
from PIL import Image, UnidentifiedImageError

from workers.errors import Cause, InfrastructureFault
from workers.messages import BlobRef

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class BlobStore:
    """Blocking; call it from workers, or through `asyncio.to_thread`."""

    def __init__(self, url: str):
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def location(self, sha256: str) -> str:
        """Where a blob lies in the store's file system."""
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> BlobRef:
        """Store an encoded PNG, JPEG or WebP image. Raises `InfrastructureFault(BAD_ANSWER)` for anything
        else.
        """
        try:
            with Image.open(io.BytesIO(data)) as image:
                media_type, (width, height) = MEDIA_TYPES.get(image.format or ""), image.size
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise InfrastructureFault(Cause.BAD_ANSWER, f"not an image: {error}") from error
        if media_type is None:
            raise InfrastructureFault(Cause.BAD_ANSWER, "not a PNG, JPEG or WebP image")
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.location(sha256)
        if not self._fs.exists(target):
            part = f"{target}.{uuid.uuid4().hex}.part"
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(part, data)
            self._fs.mv(part, target)
        return BlobRef(sha256=sha256, media_type=media_type, size=len(data), width=width, height=height)

    def get(self, ref: BlobRef) -> bytes:
        """The bytes of a blob. Raises `InfrastructureFault(BLOB_MISSING)` when absent or not what its name
        says.
        """
        try:
            data = self._fs.cat_file(self.location(ref.sha256))
        except FileNotFoundError as error:
            raise InfrastructureFault(
                Cause.BLOB_MISSING, f"blob {ref.sha256} is not in {self.url}"
            ) from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise InfrastructureFault(Cause.BLOB_MISSING, f"blob {ref.sha256} is damaged in {self.url}")
        return data
