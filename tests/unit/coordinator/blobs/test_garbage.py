"""Classifying, listing and removing blobs, on every kind of store."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coordinator.blobs.collector import classify
from coordinator.blobs.records import references_in
from workers.errors import InfrastructureFault
from workers.storage.blobs import BlobStore
from workers.storage.listing import BlobListing, ListedBlob

NOW, KEEP_S = 1_000_000.0, 3600.0
NAMES = [digit * 64 for digit in "abcd"]
STORED = st.builds(
    ListedBlob,
    path=st.uuids().map(str),
    sha256=st.sampled_from(NAMES),
    size=st.integers(1, 9),
    modified=st.floats(NOW - 3 * KEEP_S, NOW + KEEP_S),
    part=st.booleans(),
)


@given(st.lists(STORED, max_size=20), st.sets(st.sampled_from(NAMES)))
def test_each_file_is_in_use_or_young_or_garbage(stored: list[ListedBlob], names: set[str]) -> None:
    found = classify(stored, names, now=NOW, keep_s=KEEP_S)
    assert sorted(map(id, (*found.named, *found.young, *found.garbage))) == sorted(map(id, stored))
    assert all(one.part or one.sha256 not in names for one in found.garbage)
    assert all(NOW - one.modified >= KEEP_S for one in found.garbage)
    assert all(one.sha256 in names for one in found.named)
    assert all(NOW - one.modified < KEEP_S for one in found.young)


@pytest.mark.parametrize(("age_s", "goes"), [(KEEP_S, True), (KEEP_S - 0.1, False), (-5.0, False)])
def test_the_age_decides_to_the_second(age_s: float, goes: bool) -> None:
    one = ListedBlob("p", NAMES[0], 1, NOW - age_s)
    assert (classify([one], set(), now=NOW, keep_s=KEEP_S).garbage == (one,)) == goes


def test_references_are_found_anywhere_in_a_text() -> None:
    text = f'{{"sha256":"{NAMES[0]}","detail":"blob {NAMES[1]} is gone","longer":"{NAMES[2]}0"}}'
    assert references_in(text.encode()) == {NAMES[0], NAMES[1]}


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 3), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = uuid.uuid4().hex
    return str(tmp_path / name) if request.param == "folder" else f"memory://{name}"


def test_a_listing_has_blobs_and_half_written_ones_only(url: str) -> None:
    store = BlobStore(url)
    ref = store.put(picture("red"))
    fs, root = fsspec.core.url_to_fs(url)
    half = f"{store.location(ref.sha256)}.{uuid.uuid4().hex}.part"
    for path in (half, f"{root}/notes.txt", f"{root}/ab/{ref.sha256}", f"{store.location(ref.sha256)}.old"):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, b"x")
    BlobListing(url).register_user("/elsewhere")
    listed = {one.path: one for one in BlobListing(url).blobs()}
    assert set(listed) == {store.location(ref.sha256), half}
    blob = listed[store.location(ref.sha256)]
    assert (blob.sha256, blob.size, blob.part) == (ref.sha256, ref.size, False)
    assert listed[half].part


def test_a_blob_stored_again_since_the_listing_stays(url: str) -> None:
    store = BlobStore(url)
    refs = [store.put(picture(colour)) for colour in ("red", "blue")]
    listing = BlobListing(url)
    listed = listing.blobs()
    store.put(picture("red"))
    assert {one.sha256 for one in listed if listing.remove(one)} == {refs[1].sha256}
    assert store.get(refs[0]) == picture("red")
    assert not any(listing.remove(one) for one in listed if one.sha256 == refs[1].sha256)


def test_a_store_has_a_list_of_its_users(url: str) -> None:
    listing = BlobListing(url)
    assert listing.users() == []
    for place in ("/runs/a", "/runs/b", "/runs/a"):
        listing.register_user(place)
    assert {user.place for user in listing.users()} == {"/runs/a", "/runs/b"}
    listing.unregister_user("/runs/a")
    assert [user.place for user in listing.users()] == ["/runs/b"]


def test_an_unknown_user_cannot_be_removed_from_the_list(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = BlobListing(url)
    monkeypatch.setattr(listing._fs, "rm_file", lambda path: None)  # S3 does not mind
    with pytest.raises(FileNotFoundError):
        listing.unregister_user("/runs/a")


CALLS: dict[str, Callable[[BlobListing], object]] = {
    "find": lambda listing: listing.blobs(),
    "find for users": lambda listing: listing.users(),
    "info": lambda listing: listing.remove(ListedBlob("x", "0" * 64, 1, 0.0)),
    "pipe_file": lambda listing: listing.register_user("/runs/a"),
    "rm_file": lambda listing: listing.unregister_user("/runs/b"),
}


GONE = [(call, FileNotFoundError) for call in ("find", "find for users", "pipe_file")]  # such as a bucket


@pytest.mark.parametrize(("call", "kind"), [*((call, LookupError) for call in CALLS), *GONE])
def test_a_store_that_fails_is_named(
    call: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: what a store of another kind raises (no `OSError`) ended a command with a traceback."""

    def fail(*_: object, **__: object) -> None:
        raise kind("the store has moved")

    listing = BlobListing(f"memory://{uuid.uuid4().hex}")
    listing.register_user("/runs/b")
    monkeypatch.setattr(listing._fs, call.split()[0], fail)
    with pytest.raises(InfrastructureFault, match=f"{listing.url} .*: the store has moved"):
        CALLS[call](listing)


def test_a_store_in_a_runs_own_folder_needs_no_list(tmp_path: Path) -> None:
    listing = BlobListing(str(tmp_path / "run" / "blobs"))
    listing.register_user(str(tmp_path / "run"))
    assert os.listdir(tmp_path) == []
