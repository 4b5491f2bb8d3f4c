"""Prompts from parquet: both published shapes are read, and bad files are named with the cure."""

from __future__ import annotations

import base64
from pathlib import Path

import pandas as pd
import pytest

from policy.dataset import load_rows
from workers.errors import ConfigError
from workers.messages import BlobRef

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def parquet(tmp_path):
    def write(*rows: dict) -> Path:
        path = tmp_path / "rows.parquet"
        pd.DataFrame(list(rows)).to_parquet(path)
        return path

    return write


def record(**changes: object) -> dict:
    info = {"image_num": 2, "tools": ["search"], "question": "Landmarks of Lima", "split": "train"}
    info |= changes.pop("extra_info", {})
    return {"prompt": "Landmarks of Lima", "data_source": "interleaved", "extra_info": info} | changes


def multimodal(content: str = "What is this? <image>", **changes: object) -> dict:
    row = {
        "prompt": [{"role": "user", "content": content}],
        "images": [{"bytes": PNG, "path": None}],
        "modality": "multimodal",
        "data_source": "interleaved_mm",
    }
    return record(**(row | changes))


def test_a_text_row_holds_its_prompt_as_a_string(parquet):
    (row,) = load_rows(parquet(record()))
    assert row.messages == [{"role": "user", "content": "Landmarks of Lima"}]
    assert (row.image_num, row.tools, row.split, row.images) == (2, ("search",), "train", ())


def test_a_multimodal_row_holds_a_chat_and_images(parquet):
    (row,) = load_rows(parquet(multimodal()))
    assert row.messages[0]["content"] == [{"type": "text", "text": "What is this? "}, {"type": "image"}]
    assert [image.read() for image in row.images] == [PNG]
    assert row.data_source == "interleaved_mm"


def test_text_and_multimodal_rows_may_share_a_table(parquet):
    text = record(prompt=[{"role": "user", "content": "hi"}], images=None, modality="text")
    rows = load_rows(parquet(text, multimodal()))
    assert [len(row.images) for row in rows] == [0, 1]


def test_a_placeholder_is_only_text_in_a_row_without_images(parquet):
    (row,) = load_rows(parquet(record(prompt="What does <image> mean?")))
    assert row.messages[0]["content"] == "What does <image> mean?"


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ("no place for it", ["image", "no place for it"]),
        ("<image> here, <image> is text", ["image", " here, <image> is text"]),
        ("a<image>", ["a", "image"]),
    ],
)
def test_every_image_is_placed_exactly_once(parquet, content, pieces):
    (row,) = load_rows(parquet(multimodal(content)))
    shown = [piece.get("text", "image") for piece in row.messages[0]["content"]]
    assert shown == pieces


@pytest.mark.parametrize("cell", [{"bytes": PNG, "path": None}, {"image": PNG}, PNG])
def test_image_bytes_are_read_in_every_usual_shape(parquet, cell):
    (row,) = load_rows(parquet(multimodal(images=[cell])))
    assert row.images[0].read() == PNG


@pytest.mark.parametrize("cell", [{"bytes": None, "path": "a.png"}, "a.png"])
def test_image_paths_are_relative_to_the_file(parquet, tmp_path, cell):
    (tmp_path / "a.png").write_bytes(PNG)
    (row,) = load_rows(parquet(multimodal(images=[cell])))
    assert row.images[0].read() == PNG


def test_a_missing_image_file_is_named(parquet):
    (row,) = load_rows(parquet(multimodal(images=["gone.png"])))
    with pytest.raises(ConfigError, match=r"row 0: images: cannot read .*gone\.png"):
        row.images[0].read()


@pytest.mark.parametrize(
    ("tools", "read"),
    [
        (None, ()),
        ([], ()),
        ("search", ("search",)),
        ("['code', 'edit']", ("code", "edit")),
        (["Code", "code"], ("code",)),
    ],
)
def test_required_tools_are_read_in_every_usual_shape(parquet, tools, read):
    (row,) = load_rows(parquet(record(extra_info={"tools": tools})))
    assert row.tools == read


def test_a_tool_that_does_not_exist_is_required_of_nobody_and_logged(parquet, caplog):
    (row,) = load_rows(parquet(record(extra_info={"tools": ["search", "video"]})))
    assert row.tools == ("search",)
    assert "video" in caplog.text


def test_the_question_falls_back_to_the_prompt(parquet):
    (row,) = load_rows(parquet(multimodal(extra_info={"question": None})))
    assert row.question == "What is this?"


def test_a_system_prompt_replaces_the_rows_own(parquet):
    chat = [{"role": "system", "content": "old"}, {"role": "user", "content": "hi"}]
    (row,) = load_rows(parquet(record(prompt=chat)))
    assert row.chat("new")[0] == {"role": "system", "content": "new"}
    assert [message["role"] for message in row.chat("new")] == ["system", "user"]
    assert row.chat("") == chat


def test_a_row_becomes_a_task(parquet):
    blob = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
    (row,) = load_rows(parquet(multimodal()))
    task = row.task([blob])
    assert (task.question, task.image_num, task.tools, task.inputs) == (
        "Landmarks of Lima",
        2,
        ("search",),
        (blob,),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (record(data_source="gsm8k"), "row 0: data_source: 'gsm8k' is not one of"),
        (record(prompt=" "), "row 0: prompt"),
        (
            record(prompt=[{"role": "assistant", "content": "hi"}]),
            "row 0: prompt: must end with what the user asks",
        ),
        (record(prompt=[{"role": "robot", "content": "hi"}]), "row 0: prompt: every turn needs a role"),
        (record(extra_info={"image_num": "many"}), r"row 0: extra_info\.image_num: 'many'"),
        (record(extra_info={"image_num": -2}), r"extra_info\.image_num: -2"),
        (record(extra_info={"image_num": 1.5}), r"extra_info\.image_num: 1\.5"),
        (record(extra_info={"tools": 3}), r"row 0: extra_info\.tools"),
        (record(extra_info={"question": "  "}), r"row 0: extra_info\.question"),
        (record() | {"extra_info": "none"}, "row 0: extra_info: must be a struct"),
        (multimodal(images="a.png"), "row 0: images: must be a list"),
    ],
)
def test_a_bad_row_is_named_with_its_column(parquet, row, message):
    with pytest.raises(ConfigError, match=r"rows\.parquet: .*" + message):
        load_rows(parquet(row))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.parquet: does not exist"):
        load_rows(tmp_path / "gone.parquet")


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "bad.parquet").write_text("hello")
    with pytest.raises(ConfigError, match=r"bad\.parquet: not a readable parquet file"):
        load_rows(tmp_path / "bad.parquet")


def test_a_truncated_parquet_file_is_named(parquet):
    path = parquet(*[record()] * 50)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="not a readable parquet file"):
        load_rows(path)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame({"text": ["a"]}).to_parquet(path)
    with pytest.raises(ConfigError, match=r"other\.parquet: column prompt is missing \(it has text\)"):
        load_rows(path)


def test_an_empty_file_is_refused(parquet):
    path = parquet(record())
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    with pytest.raises(ConfigError, match="holds no row"):
        load_rows(path)
