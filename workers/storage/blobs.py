"""The blob store: images by the SHA-256 of their bytes, in a folder or at any fsspec URL.

Layout: `<url>/<first two hex digits>/<sha256>`.

Invariants:
- Writes are atomic and, in a local folder, durable before `put` returns (`workers.storage.atomic`).
- Reads verify the hash. `put` replaces a damaged blob.
- `put` renews the age of an existing blob, so that no garbage collection removes it.
- Type and size in pixels are read from the bytes, never from a name.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, UnidentifiedImageError

from workers.errors import BlobMissing, Cause, InfrastructureFault
from workers.messages import BlobRef
from workers.storage.atomic import sync_folder, write
from workers.storage.timeouts import call, store_errors

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class BlobStore:
    """Blocking: call it from workers, or through `asyncio.to_thread`."""

    def __init__(self, url: str):
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def location(self, sha256: str) -> str:
        """The path of a blob in the store's file system."""
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> BlobRef:
        """Store an encoded PNG, JPEG or WebP image. Raises `InfrastructureFault`: BAD_ANSWER for anything
        else, PROVIDER_DOWN when the store fails (a full disk).
        """
        try:
            with Image.open(io.BytesIO(data), formats=tuple(MEDIA_TYPES)) as image:  # reads the header only
                media_type, (width, height) = MEDIA_TYPES.get(image.format or ""), image.size
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise InfrastructureFault(Cause.BAD_ANSWER, f"not an image: {error}") from error
        if media_type is None:
            raise InfrastructureFault(Cause.BAD_ANSWER, "not a PNG, JPEG or WebP image")
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.location(sha256)
        with store_errors(self.url, "could not store an image"):
            if not (isinstance(self._fs, LocalFileSystem) and _renewed(Path(target), data)):
                write(self._fs, target, data)
        return BlobRef(sha256=sha256, media_type=media_type, size=len(data), width=width, height=height)

    def get(self, ref: BlobRef) -> bytes:
        """The bytes of a blob. Raises `BlobMissing` when it is absent or damaged, and
        `InfrastructureFault(PROVIDER_DOWN)` when the store fails.
        """
        try:
            with store_errors(self.url, "could not read an image", passing=FileNotFoundError):
                data = call(self._fs, "cat_file", self.location(ref.sha256))
        except FileNotFoundError as error:
            raise BlobMissing(ref.sha256, f"blob {ref.sha256} is not in {self.url}") from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise BlobMissing(ref.sha256, f"blob {ref.sha256} is damaged in {self.url}")
        return data


def _renewed(path: Path, data: bytes) -> bool:
    """Whether the file exists and holds `data`; then its age is reset. Cheaper than a write."""
    try:
        os.utime(path)  # before reading, so that a collection that runs now keeps it
        if path.read_bytes() != data:
            return False
    except (FileNotFoundError, PermissionError):  # the latter: another user's file, which is replaced
        return False
    sync_folder(path.parent)  # another process may have just written it
    return True
