"""Prompts from parquet: both published shapes are read, and bad files are reported with what to do."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy.data.dataset import load_rows
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
        ("<image> here", ["image", " here"]),
        ("a<image>", ["a", "image"]),
    ],
)
def test_every_image_is_placed_exactly_once(parquet, content, pieces):
    (row,) = load_rows(parquet(multimodal(content)))
    shown = [piece.get("text", "image") for piece in row.messages[0]["content"]]
    assert shown == pieces


def test_rows_with_and_without_images_share_a_column_of_single_structs(parquet):
    text = record(images=None)
    rows = load_rows(parquet(text, multimodal(images={"bytes": PNG, "path": None}, prompt="What?")))
    assert [len(row.images) for row in rows] == [0, 1]
    assert rows[1].images[0].read() == PNG


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


def test_an_unknown_tool_is_ignored_and_logged(parquet, caplog):
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
            "row 0: prompt: must end with a message of the user",
        ),
        (record(prompt=[{"role": "robot", "content": "hi"}]), "row 0: prompt: every turn needs a role"),
        (record(extra_info={"image_num": "many"}), r"row 0: extra_info\.image_num: 'many'"),
        (record(extra_info={"image_num": "9" * 900}), r"extra_info\.image_num: '9+…9+' \(902 characters\)"),
        (record(extra_info={"image_num": -2}), r"extra_info\.image_num: -2"),
        (record(extra_info={"image_num": 1.5}), r"extra_info\.image_num: 1\.5"),
        (record(extra_info={"tools": 3}), r"row 0: extra_info\.tools"),
        (record(extra_info={"question": "  "}), r"row 0: extra_info\.question"),
        (record() | {"extra_info": "none"}, "row 0: extra_info: must be a struct"),
        (multimodal("two <image> <image>"), "row 0: prompt: has 2 <image> and there are 1 images"),
        (multimodal(images=None), "row 0: prompt: has 1 <image> and there are 0 images"),
        (record(data_source="x" * 400_000), r"row 0: data_source: 'x+…x+' \(400,002 characters\)"),
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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n', r"looks like JSON; .*read_json\(FILE, lines=True\)"),
        ("a.json", b"[{}]", r"looks like JSON; .*read_json\(FILE\)"),
        ("a.csv", b"prompt,images\n", r"read_csv"),
        ("a.parquet.gz", b"\x1f\x8b\x08\x00", r"is compressed \(gzip\); unpack it"),
        ("a.parquet", b"", r"is empty; write or download it again"),
        ("a.parquet", b"PAR1", r"not a readable parquet file"),
        ("a.parquet", b"PAR1" + b"\xff" * 5000 + b"PAR1", r"not a readable parquet file"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", r"not a readable parquet file"),
    ],
)
def test_a_file_of_another_kind_is_named_with_a_hint(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_rows(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a file"),
        ("/dev/null", "is no"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_rows(path)


@pytest.mark.parametrize("name", ["a\0b.parquet", "x" * 5000])
def test_an_impossible_file_name_is_refused(name):
    with pytest.raises(ConfigError) as caught:
        load_rows(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        ({"images": "image"}, "column image: did you mean images"),
        ({"images": "Images"}, "column Images: did you mean images"),
        ({"images": "image_path"}, "column image_path: did you mean images"),
        ({"prompt": "promt"}, "column prompt is missing .*; did you mean promt"),
        ({"data_source": "datasource"}, "column data_source is missing .*; did you mean datasource"),
        ({"extra_info": "extra_infos"}, "column extra_info is missing .*; did you mean extra_infos"),
    ],
)
def test_a_misspelt_column_is_named(tmp_path, renamed, said):
    frame = pd.DataFrame([multimodal("What?")]).rename(columns=renamed)
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=said):
        load_rows(tmp_path / "rows.parquet")


def test_a_misspelt_key_of_extra_info_is_named(parquet):
    row = record()
    row["extra_info"]["tool"] = row["extra_info"].pop("tools")
    with pytest.raises(ConfigError, match=r"extra_info\.tool: did you mean tools"):
        load_rows(parquet(row))


def test_other_columns_are_not_read(tmp_path):
    frame = pd.DataFrame([multimodal(ability="write", reward_model={"style": "rule"})])
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    far = pa.array([2**50], pa.timestamp("s"))  # no datetime holds it
    pq.write_table(pq.read_table(path).append_column("far", far), path)
    assert len(load_rows(path)) == 1


def test_a_text_that_is_not_utf8_is_named(tmp_path, parquet):
    table = pq.read_table(parquet(record()))
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(table.set_column(0, "prompt", bad), tmp_path / "bad.parquet")
    with pytest.raises(ConfigError, match=r"bad\.parquet: a value of prompt, .*in UTF-8"):
        load_rows(tmp_path / "bad.parquet")


def test_a_duplicate_column_is_named(tmp_path, parquet):
    table = pq.read_table(parquet(record()))
    pq.write_table(table.append_column("prompt", table["prompt"]), tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match="column prompt occurs twice"):
        load_rows(tmp_path / "two.parquet")


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
    with pytest.raises(ConfigError, match="has no rows"):
        load_rows(path)
