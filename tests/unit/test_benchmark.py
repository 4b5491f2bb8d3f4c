"""Benchmarks from files: what is read, and what a wrong file is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_services import png

from evaluation.benchmark import fingerprint, load
from policy.corpus import write_dataset
from workers.blobs import BlobStore
from workers.errors import ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(content: Any, name: str = "bench.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return run


def item(**fields: Any) -> dict[str, Any]:
    return {"prompt": "A page about herons.", "r1": "It names the heron.", **fields}


def test_an_item_keeps_prompt_criteria_and_their_order(write: Write) -> None:
    bench = load(write([item(r3="Third.", r2="Second.", category="birds")]))
    [entry] = bench.entries
    assert bench.kind == "rubric"
    assert entry.item_id == "0001"
    assert entry.task.question == "A page about herons."
    assert list(entry.criteria.items()) == [
        ("r1", "It names the heron."),
        ("r2", "Second."),
        ("r3", "Third."),
    ]


def test_json_lines_and_an_array_are_the_same(write: Write) -> None:
    items = [item(), item(prompt="Another.")]
    array = load(write(items))
    lines = load(write("\n\n".join(json.dumps(one) for one in items) + "\n", "bench.jsonl"))
    assert [entry.task for entry in array.entries] == [entry.task for entry in lines.entries]


def test_the_limit_takes_the_first(write: Write) -> None:
    bench = load(write([item(prompt=f"Page {n}.") for n in range(5)]), limit=2)
    assert [entry.task.question for entry in bench.entries] == ["Page 0.", "Page 1."]


def test_images_are_files_data_uris_or_base64(write: Write, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "boat.png").write_bytes(png("navy"))
    plain = base64.b64encode(png("teal")).decode()
    images = ["pictures/boat.png", f"data:image/png;base64,{plain}", plain]
    bench = load(write([item(images=images)]))
    bench.check()
    blobs = BlobStore(str(tmp_path / "blobs"))
    [stored] = bench.store(blobs)
    assert [(ref.width, ref.height) for ref in stored.task.inputs] == [(96, 64)] * 3
    assert stored.task.inputs[1] == stored.task.inputs[2] != stored.task.inputs[0]
    assert stored.task.data_source == "interleaved_mm"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([item(), {"r1": "x"}], r"item 2: prompt: must be a text"),
        ([item(prompt="  ")], r"item 1: prompt"),
        ([{"prompt": "x"}], r"item 1: r1: missing"),
        ([item(r2=7)], r"item 1: r2: must be a text"),
        ([item(r11="too many")], r"item 1: r11: criteria are named r1 to r10"),
        ([item(images="boat.png")], r"item 1: images: must be a list"),
        (["heron"], r"item 1: must be an object"),
        ([], r"holds no item"),
        ("", r"holds no item"),
        ('[{"prompt": "x",\n "r1" 3}]', r"bench\.json:2: not valid JSON"),
        ('{"prompt": "x", "r1": "y"}\n{"prompt"', r"line 2: not valid JSON"),
    ],
)
def test_a_wrong_file_is_named_with_item_and_field(write: Write, content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write(content))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("gone.png", r"item 1: images\[0\]: cannot read .*gone\.png"),
        ("%%%", r"item 1: images\[0\]: cannot read"),
        ("data:image/png;base64,!!!", r"item 1: images\[0\]: neither an existing file nor base64"),
        (base64.b64encode(b"not a picture").decode(), r"item 1: images\[0\]: image refused"),
    ],
)
def test_a_wrong_image_is_named_with_item_and_position(write: Write, image: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write([item(images=[image])])).check()


def test_a_benchmark_that_is_not_there_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such benchmark; name a \.json"):
        load(tmp_path / "bench.json")


def test_parquet_rows_become_items_without_criteria(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, seed=1, train=1, test=3)
    bench = load(files["test_mm"])
    bench.check()
    stored = bench.store(BlobStore(str(tmp_path / "blobs")))
    assert bench.kind == "reward"
    assert [one.criteria for one in stored] == [{}] * 3
    assert all(len(one.task.inputs) == 1 and one.task.split == "test" for one in stored)


def test_equal_items_have_equal_fingerprints(write: Write, tmp_path: Path) -> None:
    blobs = BlobStore(str(tmp_path / "blobs"))
    one = load(write([item()], "a.json")).store(blobs)
    same = load(write([item()], "b.json")).store(blobs)
    other = load(write([item(r1="It names the owl.")], "c.json")).store(blobs)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
