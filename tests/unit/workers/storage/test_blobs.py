"""The blob store: content-addressed, atomic, verified."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from workers.errors import BlobMissing, Cause, InfrastructureFault
from workers.messages import BlobRef
from workers.storage import atomic, timeouts
from workers.storage.blobs import BlobStore


def encoded(kind: str = "PNG", size: tuple[int, int] = (5, 3), colour: str = "teal") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture(params=["folder", "file URL", "memory URL"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A store of each kind; the one in memory is an object store to fsspec, as S3 is."""
    name = uuid.uuid4().hex
    urls = {
        "folder": str(tmp_path / name),
        "file URL": f"file://{tmp_path / name}",
        "memory URL": f"memory://{name}",
    }
    return BlobStore(urls[request.param])


def files(store: BlobStore) -> list[Path]:
    return [path for path in Path(store.url).rglob("*") if path.is_file()]


def lying_in(store: BlobStore) -> dict[str, bytes]:
    """Every file of a store of any kind, by its path."""
    fs, root = fsspec.core.url_to_fs(store.url)
    return {name: fs.cat_file(name) for name in fs.find(root)}


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_a_stored_image_is_read_by_its_hash(kind: str, media_type: str, any_store: BlobStore) -> None:
    data, store = encoded(kind), any_store
    ref = store.put(data)
    assert ref == BlobRef(
        sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, size=len(data), width=5, height=3
    )
    assert store.get(ref) == data


def test_the_same_image_is_stored_once(any_store: BlobStore) -> None:
    ref = any_store.put(encoded())
    assert any_store.put(encoded()) == ref
    assert lying_in(any_store) == {any_store.location(ref.sha256): encoded()}


def flip(fs: fsspec.AbstractFileSystem, name: str) -> None:
    data = bytearray(fs.cat_file(name))
    data[-1] ^= 1
    fs.pipe_file(name, bytes(data))


@pytest.mark.parametrize("harm", [flip, lambda fs, name: fs.rm_file(name)], ids=["flipped", "removed"])
def test_a_lost_or_damaged_blob_is_reported_and_can_be_put_again(harm: object, any_store: BlobStore) -> None:
    ref = any_store.put(encoded())
    fs, _ = fsspec.core.url_to_fs(any_store.url)
    harm(fs, any_store.location(ref.sha256))  # type: ignore[operator]
    with pytest.raises(BlobMissing, match=ref.sha256) as raised:
        any_store.get(ref)
    assert raised.value.sha256 == ref.sha256
    assert any_store.put(encoded()) == ref
    assert any_store.get(ref) == encoded()


def test_putting_a_blob_again_renews_its_age(store: BlobStore) -> None:
    path = Path(store.location(store.put(encoded()).sha256))
    os.utime(path, (1, 1))
    store.put(encoded())
    assert path.stat().st_mtime > 1


def test_a_blob_is_on_the_disk_before_put_returns(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(opened: int) -> None:
        if threading.current_thread() is threading.main_thread():  # not a ledger's, of another test
            steps.append("folder" if os.path.isdir(f"/proc/self/fd/{opened}") else "file")
        sync(opened)

    def renamed(part: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    store.put(encoded())
    assert steps[:3] == ["file", "rename", "folder"]


def test_a_full_disk_is_a_fault_of_the_store_and_leaves_no_file(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(opened: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(opened)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InfrastructureFault, match="No space left") as raised:
        store.put(encoded())
    assert (raised.value.cause, raised.value.provider) == (Cause.PROVIDER_DOWN, "blobs")
    assert files(store) == []


def test_on_a_file_server_the_complete_file_is_renamed() -> None:
    class Server(MemoryFileSystem):
        """One whose writes are seen as they come, so that only its rename is atomic."""

        cachable = False
        moved: list[str] = []  # noqa: RUF012

        def mv(self, path1: str, path2: str, **_: object) -> None:
            assert self.cat_file(path1) == b"whole"
            self.moved.append(path2)
            super().mv(path1, path2)

    server, target = Server(global_store=False), "/blobs/ab/name"
    atomic.write(server, target, b"whole")
    assert server.moved == [target]
    assert server.find("/blobs") == [target]


class Elsewhere(AsyncFileSystem):
    """A store reached over the network that is in trouble."""

    protocol = "elsewhere"
    cachable = False

    async def _trouble(self) -> None:
        raise NotImplementedError

    async def _cat_file(self, path: str, start: object = None, end: object = None, **_: object) -> bytes:
        await self._trouble()
        raise AssertionError

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        await self._trouble()


class Refusing(Elsewhere):
    async def _trouble(self) -> None:
        raise LookupError("no credentials")  # as botocore's errors, it is no OSError


class Silent(Elsewhere):
    async def _trouble(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(("fs", "why"), [(Refusing, "no credentials"), (Silent, "FSTimeoutError")])
def test_every_failure_of_the_store_is_a_fault_of_the_store(
    fs: type[Elsewhere], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "CALL_TIMEOUT_S", 0.05)
    fsspec.register_implementation("elsewhere", fs, clobber=True)
    store = BlobStore("elsewhere://bucket/blobs")
    ref = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
    for call in (lambda: store.put(encoded()), lambda: store.get(ref)):
        with pytest.raises(InfrastructureFault, match=why) as raised:
            call()
        assert (raised.value.cause, raised.value.provider) == (Cause.PROVIDER_DOWN, "blobs")


def test_many_writers_of_one_image_leave_one_complete_file(store: BlobStore) -> None:
    data = encoded(size=(300, 300))
    with ThreadPoolExecutor(8) as writers:
        refs = set(writers.map(store.put, [data] * 40))
    assert len(refs) == 1
    assert [path.read_bytes() for path in files(store)] == [data]


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded("GIF"), encoded()[:20]], ids=["empty", "text", "gif", "header only"]
)
def test_bytes_that_are_not_an_image_are_refused(data: bytes, store: BlobStore) -> None:
    with pytest.raises(InfrastructureFault) as raised:
        store.put(data)
    assert raised.value.cause is Cause.BAD_ANSWER
    assert files(store) == []


def test_an_absent_blob_is_missing(store: BlobStore) -> None:
    ref = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
    with pytest.raises(InfrastructureFault) as raised:
        store.get(ref)
    assert raised.value.cause is Cause.BLOB_MISSING


def test_a_damaged_blob_is_never_returned(store: BlobStore) -> None:
    ref = store.put(encoded())
    Path(store.location(ref.sha256)).write_bytes(encoded(colour="red"))
    with pytest.raises(InfrastructureFault, match="damaged") as raised:
        store.get(ref)
    assert raised.value.cause is Cause.BLOB_MISSING
