"""Images lie in the store once, whole, and as what they are."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from workers.blobs import BlobStore
from workers.errors import Cause, InfrastructureFault
from workers.messages import BlobRef


def encoded(kind: str = "PNG", size: tuple[int, int] = (5, 3), colour: str = "teal") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def files(store: BlobStore) -> list[Path]:
    return [path for path in Path(store.url).rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_bytes_come_back_under_their_hash(kind: str, media_type: str, store: BlobStore) -> None:
    data = encoded(kind)
    ref = store.put(data)
    assert ref == BlobRef(
        sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, size=len(data), width=5, height=3
    )
    assert store.get(ref) == data


def test_the_same_image_is_stored_once(store: BlobStore) -> None:
    assert store.put(encoded()) == store.put(encoded())
    assert len(files(store)) == 1


def test_many_writers_of_one_image_leave_one_whole_file(store: BlobStore) -> None:
    data = encoded(size=(300, 300))
    with ThreadPoolExecutor(8) as writers:
        refs = set(writers.map(store.put, [data] * 40))
    assert len(refs) == 1
    assert [path.read_bytes() for path in files(store)] == [data]


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded("GIF"), encoded()[:20]], ids=["empty", "text", "gif", "header only"]
)
def test_what_is_no_image_is_refused(data: bytes, store: BlobStore) -> None:
    with pytest.raises(InfrastructureFault) as raised:
        store.put(data)
    assert raised.value.cause is Cause.BAD_ANSWER
    assert files(store) == []


def test_an_absent_blob_is_missing(store: BlobStore) -> None:
    ref = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
    with pytest.raises(InfrastructureFault) as raised:
        store.get(ref)
    assert raised.value.cause is Cause.BLOB_MISSING


def test_a_damaged_blob_is_never_handed_out(store: BlobStore) -> None:
    ref = store.put(encoded())
    Path(store.location(ref.sha256)).write_bytes(encoded(colour="red"))
    with pytest.raises(InfrastructureFault, match="damaged") as raised:
        store.get(ref)
    assert raised.value.cause is Cause.BLOB_MISSING
