"""Input images in every shape in which `datasets`, pandas and people write them, and what is refused."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hostile_images import REFUSED, coded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policy.data import checked_images
from policy.data.checked_images import CheckedImages, check
from policy.data.dataset import load_rows
from policy.data.files import misnamed, shown
from policy.data.input_images import InputImage, of_cell
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.storage.blobs import BlobStore
from workers.storage.cache import CACHE_ENV

TEAL = Image.new("RGB", (16, 12), "teal")
PNG = coded(TEAL)
TEXT = base64.b64encode(PNG).decode()
SHORT = 700


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of data with pictures in it."""
    (tmp_path / "data" / "more").mkdir(parents=True)
    for name in ("a.png", "more/with blank.png", "noending"):
        (tmp_path / "data" / name).write_bytes(PNG)
    return tmp_path / "data"


def cell(value: Any, kind: pa.DataType | None = None) -> Any:
    return pa.array([value], kind)[0]


IN_CELLS: dict[str, Any] = {
    "list of structs": [{"bytes": PNG, "path": None}],
    "one struct": {"bytes": PNG, "path": None},
    "struct with a path": {"bytes": None, "path": "a.png"},
    "bytes win over a path": {"bytes": PNG, "path": "gone.png"},
    "empty bytes and a path": {"bytes": b"", "path": "a.png"},
    "nested struct": [{"image": {"bytes": PNG, "path": "x"}}],
    "processor's struct": [{"type": "image", "image": "a.png"}],
    "bytes": PNG,
    "list of bytes": [PNG],
    "path": "a.png",
    "list of paths": ["more/with blank.png"],
    "base64": TEXT,
    "base64 in lines": "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "data URI": [f"data:image/png;base64,{TEXT}"],
    "file without an ending": "noending",
}


@pytest.mark.parametrize("value", IN_CELLS.values(), ids=IN_CELLS)
def test_an_image_is_read_in_every_usual_shape(folder: Path, value: Any) -> None:
    [image] = of_cell(cell(value), folder, "f: row 0")
    assert image.read() == PNG


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_file_url_is_read(folder: Path, host: str) -> None:
    path = str(folder / "more" / "with blank.png").replace(" ", "%20")
    [image] = of_cell(cell(f"file://{host}{path}"), folder, "f: row 0")
    assert image.read() == PNG


@pytest.mark.parametrize(
    "kind", [pa.large_binary(), pa.binary_view(), pa.binary(len(PNG)), pa.dictionary(pa.int8(), pa.binary())]
)
def test_every_kind_of_binary_column_is_read(folder: Path, kind: pa.DataType) -> None:
    [image] = of_cell(cell(PNG, kind), folder, "f: row 0")
    assert image.read() == PNG


@pytest.mark.parametrize("kind", [pa.list_(pa.binary(), 2), pa.large_list(pa.binary())])
def test_every_kind_of_list_column_is_read(folder: Path, kind: pa.DataType) -> None:
    found = of_cell(cell([PNG, PNG], kind), folder, "f: row 0")
    assert [image.read() for image in found] == [PNG, PNG]


NOTHING: dict[str, Any] = {
    "null": cell(None, pa.binary()),
    "no list": cell(None, pa.list_(pa.binary())),
    "empty list": cell([], pa.list_(pa.binary())),
    "list of nulls": cell([None, None], pa.list_(pa.binary())),
    "NaN": cell(float("nan")),
    "list of NaN": cell([float("nan")]),
    "struct of nothing": cell(
        {"bytes": None, "path": None}, pa.struct({"bytes": pa.binary(), "path": "str"})
    ),
    "empty text": cell(""),
    "no column": None,
}


@pytest.mark.parametrize("value", NOTHING.values(), ids=NOTHING)
def test_empty_values_are_no_image(folder: Path, value: Any) -> None:
    assert of_cell(value, folder, "f: row 0") == ()


REFUSED_CELLS: dict[str, tuple[Any, str]] = {
    "a hole": ([PNG, None], r"images\[1\]: is empty"),
    "numbers": (np.zeros(12, np.uint8), r"images\[0\]: is of type uint8"),
    "rows of numbers": ([[1, 2], [3, 4]], r"images\[0\]: is of type list"),
    "a short name that could be base64": ("gone", r"images: cannot read .*gone"),
    "a number": (7, r"images: is of type int64"),
    "other keys": ([{"url": "http://x/y.png"}], r"images\[0\]: has the keys url"),
    "NUL in a path": (["a\0.png"], r"images\[0\]: cannot read"),
    "a path that is gone": ("gone.png", r"images: cannot read .*gone\.png: No such file"),
    "a folder": ("more", r"images: cannot read .*more"),
    "a device": ("/dev/zero", r"images: cannot read /dev/zero: it is not a file"),
    "an endless name": ("x." * 200_000, r"images: cannot read .*characters"),
    "a web address": (
        ["https://example.org/a.png"],
        r"images\[0\]: https://.* is not downloaded.*; download it",
    ),
    "an object store": ("s3://bucket/a.png", r"is not downloaded"),
    "another machine": ("file://elsewhere/a.png", r"is on another machine"),
    "a data URI of text": ("data:image/svg+xml,<svg/>", r"a data URI without base64"),
    "an empty data URI": ("data:image/png;base64,", r"an empty data URI"),
    "endless base64": (f"data:image/png;base64,{'A' * 50_000_000}", r"over the limit"),
    "base64 that is none": ("data:image/png;base64,!!!", r"neither a file nor base64"),
    "nested without end": ({"image": {"image": {"image": {"image": PNG}}}}, r"neither bytes nor a path"),
}


@pytest.mark.parametrize(("value", "said"), REFUSED_CELLS.values(), ids=REFUSED_CELLS)
def test_other_values_are_refused_with_row_and_hint(folder: Path, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        _read(cell(value), folder)
    message = str(caught.value)
    assert message.startswith("f: row 3: images")
    assert len(message) < SHORT
    assert message.isprintable()


def test_a_file_over_the_limit_is_not_read(folder: Path) -> None:
    with (folder / "vast.png").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ConfigError, match="over the limit of 33,554,432; make it smaller"):
        InputImage("vast.png", folder, "f: row 0: images").read()


def test_a_pipe_is_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ConfigError, match="it is not a file"):
        InputImage("pipe.png", folder, "f: row 0: images").read()


def test_images_written_by_datasets_are_read(tmp_path: Path) -> None:
    """One `Image()`, a list of them, PIL images encoded by it, rows with and without."""
    TEAL.save(tmp_path / "a.png")
    info = {"image_num": 1, "tools": ["edit"], "question": "What?", "split": "train"}
    rows: dict[str, list[Any]] = {"prompt": ["What?"] * 3, "data_source": ["interleaved_mm"] * 3}
    rows |= {"extra_info": [info] * 3}
    for name, feature, column in (
        ("one", datasets.Image(), [TEAL, str(tmp_path / "a.png"), None]),
        ("list", datasets.List(datasets.Image()), [[TEAL, TEAL], [{"bytes": PNG, "path": None}], []]),
    ):
        made = datasets.Dataset.from_dict({**rows, "images": column})
        made = made.cast_column("images", feature)
        made.to_parquet(tmp_path / f"{name}.parquet")
        loaded = load_rows(tmp_path / f"{name}.parquet")
        assert [bool(row.images) for row in loaded] == [True, True, False]
        for image in (image for row in loaded for image in row.images):
            assert Image.open(io.BytesIO(image.read())).tobytes() == TEAL.tobytes()


def test_images_written_by_pandas_are_read(tmp_path: Path) -> None:
    info = {"image_num": 1, "tools": ["edit"], "question": "What?", "split": "train"}
    columns: list[list[Any]] = [
        [np.array([PNG], object), None],
        [[{"bytes": PNG}], float("nan")],
        [PNG, None],
        [{"bytes": PNG, "path": "x.png"}, float("nan")],
        [TEXT, ""],
    ]
    for column in columns:
        frame = pd.DataFrame({"prompt": "What?", "data_source": "interleaved", "images": column})
        frame["extra_info"] = [info] * 2
        frame.to_parquet(tmp_path / "rows.parquet")
        first, second = load_rows(tmp_path / "rows.parquet")
        assert [image.read() for image in first.images] == [PNG]
        assert second.images == ()


CONVERTED: dict[str, bytes] = {
    "GIF": coded(TEAL, "GIF"),
    "BMP": coded(TEAL, "BMP"),
    "WebP": coded(TEAL, "WEBP"),
    "MPO": coded(TEAL, "MPO", save_all=True, append_images=[TEAL]),
    "JPEG in CMYK": coded(TEAL.convert("CMYK"), "JPEG"),
    "palette": coded(TEAL.convert("P")),
    "16 bits": coded(Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)),
    "one bit": coded(TEAL.convert("1")),
    "grey with alpha": coded(TEAL.convert("LA")),
}


@pytest.mark.parametrize("data", CONVERTED.values(), ids=CONVERTED)
def test_readable_images_are_encoded_for_the_store(tmp_path: Path, data: bytes) -> None:
    image = InputImage(data, tmp_path, "f: row 0: images[0]")
    assert check([image]) == []
    ref = BlobStore(str(tmp_path / "blobs")).put(CheckedImages().get(image))
    assert (ref.width, ref.height) == (16, 12)


NOT_READ = {
    "TIFF": coded(TEAL, "TIFF"),
    "AVIF": coded(TEAL, "AVIF"),
    "text": b"hello",
    "ICO": coded(TEAL, "ICO"),
}


@pytest.mark.parametrize("data", [*NOT_READ.values(), *REFUSED.values()], ids=[*NOT_READ, *REFUSED])
def test_refused_images_are_named_with_row_and_hint(tmp_path: Path, data: bytes) -> None:
    [problem] = check([InputImage(data, tmp_path, "f: row 7: images[0]")])
    assert problem.startswith("f: row 7: images[0]: ")
    assert problem.endswith(("that shows something", "a data URI or base64"))
    assert len(problem) < SHORT
    assert " at 0x" not in problem


def test_problems_come_in_order_and_progress_counts_to_the_end(tmp_path: Path) -> None:
    inputs = [
        InputImage(PNG if at % 3 else b"hello", tmp_path, f"f: row {at}: images[0]") for at in range(12)
    ]
    seen: list[tuple[int, int]] = []
    problems = check(inputs, lambda done, of: seen.append((done, of)))
    assert [problem.split(":")[1].strip() for problem in problems] == ["row 0", "row 3", "row 6", "row 9"]
    assert seen == [(done, 12) for done in range(1, 13)]


def test_an_image_is_decoded_once_and_then_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = InputImage(PNG, tmp_path, "f: row 0: images[0]")
    first = CheckedImages().get(image)
    monkeypatch.setattr(checked_images.images, "checked", _never)
    assert CheckedImages().get(image) == first


def test_a_damaged_or_unwritable_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = InputImage(PNG, tmp_path, "f: row 0: images[0]")
    first = CheckedImages().get(image)
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert CheckedImages().get(image) == first
    monkeypatch.setenv(CACHE_ENV, "/proc/none")
    assert CheckedImages().get(image) == first


def test_a_failing_jail_is_not_an_error_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> bytes:
        raise InfrastructureFault(Cause.SANDBOX, "no jail")

    monkeypatch.setattr(checked_images, "_validate", broken)
    with pytest.raises(InfrastructureFault, match="no jail"):
        check([InputImage(PNG, tmp_path, "f: row 0: images[0]")])


def _read(value: Any, folder: Path) -> list[bytes]:
    return [image.read() for image in of_cell(value, folder, "f: row 3")]


def _never(data: bytes) -> bytes:
    raise AssertionError("decoded again")


def test_a_map_is_no_list_of_images(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"images: is of type map"):
        _read(cell([("a", 1)], pa.map_(pa.string(), pa.int64())), folder)


@given(st.text(max_size=200) | st.binary(max_size=60) | st.integers() | st.lists(st.text(max_size=9)))
def test_a_value_in_a_message_is_short_and_printable(value: object) -> None:
    assert len(shown(value)) < 200
    assert shown(value).isprintable()


@pytest.mark.parametrize(
    "name",
    ["image", "Images", "IMAGES ", "imges", "img", "pictures", "image_paths", "image_url", "photos", "pic"],
)
def test_a_name_like_images_is_found_when_images_is_absent(name: str) -> None:
    from policy.data.files import IMAGES

    assert misnamed([name, "prompt"], ["prompt", "images"], IMAGES) == {name: "images"}
    assert misnamed([name, "images"], ["images"], IMAGES) == {}


@pytest.mark.parametrize(
    "name", ["modality", "ability", "reward_model", "index", "category", "image_num", "id"]
)
def test_columns_of_published_files_are_no_misspelling(name: str) -> None:
    from policy.data.files import IMAGES

    assert misnamed([name], ["prompt", "images", "data_source", "extra_info"], IMAGES) == {}
