"""Benchmarks from files: the items read, and the error of a wrong file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_services import png
from packages import install

from evaluation.benchmark import fingerprint
from evaluation.formats import load
from llmi.demo.prompts.corpus import write_dataset
from workers.errors import ConfigError
from workers.extensions import loaders
from workers.storage.blobs import BlobStore
from workers.storage.cache import CACHE_ENV

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "cache"))


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
        ([item(prompt="A <image>", image=["a.png"])], r"item 1: image: did you mean images\? Rename the key"),
        ([item(images=None, image="a.png")], r"item 1: image: did you mean images"),
        ([item(images={})], r"item 1: images: must be a list"),
        ([item(Images=["a.png"])], r"item 1: Images: did you mean images"),
        ([item(img="a.png")], r"item 1: img: did you mean images"),
        ([{"Prompt": "x", "r1": "y"}], r"item 1: Prompt: did you mean prompt"),
        ([{"question": "x", "r1": "y"}], r"item 1: question: did you mean prompt"),
        ([item(prompt="A <image>")], r"item 1: prompt: has 1 <image> and there are 0 images"),
        ([item(prompt="<image> <image>", images=["a"])], r"has 2 <image> and there are 1 images"),
        ([item(R2="x")], r"item 1: R2: criteria are named r1 to r10"),
        ([item(r_2="x")], r"item 1: r_2: criteria are named r1 to r10"),
        ([item(r01="x")], r"item 1: r01: criteria are named r1 to r10"),
        ([], r"has no item"),
        ("", r"is empty; write or download it again"),
        (" \n", r"has no item"),
        ('[{"prompt": "x",\n "r1" 3}]', r"bench\.json:2: not valid JSON"),
        ('{"prompt": "x", "r1": "y"}\n{"prompt"', r"line 2: not valid JSON"),
        ('{"prompt": "x", "prompt": "y", "r1": "z"}', r"line 1: key prompt is there twice"),
        ('[{"prompt": "x", "r1": "y", "r1": "z"}]', r"bench\.json: key r1 is there twice"),
        ('{"a":' * 100_000, r"line 1: is nested too deeply"),
        ("[" * 100_000, r"is nested too deeply"),
        (f'{{"prompt": {"1" * 5000}}}', r"line 1: not valid JSON: Exceeds the limit"),
        ('{"prompt": "x"} {"prompt": "y"}', r"line 1: not valid JSON: Extra data"),
        ('{\n "prompt": "x",\n "r1": "y"\n}', r"line 1: not valid JSON: .*one item a line, or one array"),
    ],
)
def test_a_wrong_file_is_named_with_item_and_field(write: Write, content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(write(content))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_lines_end_at_line_feeds_only(write: Write, sign: str) -> None:
    items = [item(prompt=f"A{sign}heron."), item(prompt="Another.")]
    text = "\n".join(json.dumps(one, ensure_ascii=ord(sign) < 32) for one in items)
    bench = load(write(text, "bench.jsonl"))
    assert [entry.task.question for entry in bench.entries] == [f"A{sign}heron.", "Another."]


@pytest.mark.parametrize(
    ("start", "end"), [("", "\r\n"), ("\ufeff", "\n"), ("\n\n ", "\n\n"), ("", " \r\n\t")]
)
def test_line_ends_of_windows_and_a_byte_order_mark_are_read(write: Write, start: str, end: str) -> None:
    path = write("", "bench.jsonl")
    path.write_bytes((start + end.join([json.dumps(item())] * 3) + end).encode())
    assert len(load(path).entries) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08\x00", r"is compressed \(gzip\); unpack it"),
        (b"PK\x03\x04", r"is compressed \(zip\)"),
        ("[]".encode("utf-16"), r"byte 0 is not UTF-8; save the file as UTF-8"),
        ('{"prompt": "caf\xe9"}'.encode("latin-1"), r"byte 15 is not UTF-8"),
        (b"PAR1 and then nothing", r"not a readable parquet file"),
    ],
)
def test_a_file_of_another_kind_is_named_with_a_hint(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bench.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"bench\.json: {said}"):
        load(tmp_path / "bench.json")


def test_a_folder_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder; name a \.json"):
        load(tmp_path)


def test_keys_that_are_not_read_are_named_once(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    load(write([item(category="birds"), item(category="cats", level=2)]))
    [record] = caplog.records
    assert record.getMessage().endswith("ignored keys: category, level")


def test_half_a_character_in_a_prompt_is_read(write: Write) -> None:
    bench = load(write('[{"prompt": "a \\ud83d b", "r1": "x"}]'))
    assert bench.entries[0].task.question.startswith("a ")


def test_many_bad_images_make_a_short_message(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"bench\.json: 30 more images like these") as caught:
        load(write([item(images=["gone.png"] * 10) for _ in range(5)])).check()
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("gone.png", r"item 1: images\[0\]: cannot read .*gone\.png"),
        ("%%%", r"item 1: images\[0\]: cannot read"),
        ("data:image/png;base64,!!!", r"item 1: images\[0\]: neither a file nor base64"),
        (base64.b64encode(b"not a picture").decode(), r"item 1: images\[0\]: image refused"),
    ],
)
def test_a_wrong_image_is_named_with_item_and_position(write: Write, image: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write([item(images=[image])])).check()


def test_a_benchmark_that_is_not_there_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; name a \.json"):
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


CSV = """
import csv
from evaluation.benchmark import Entry, Format
from policy.document import Task

class Csv(Format):
    kind = "rubric"
    files = "a .csv file"

    def matches(self, path, head):
        return path.suffix == ".csv"

    def read(self, path):
        with open(path, encoding="utf-8") as file:
            rows = list(csv.reader(file))
        return [
            Entry(f"{n:04d}", Task(question=prompt, split="test"), {"r1": criterion}, (), f"row {n}")
            for n, (prompt, criterion) in enumerate(rows, start=1)
        ]
"""


@pytest.fixture
def csv_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaders.cache_clear()
    (tmp_path / "package").mkdir()
    install(monkeypatch, tmp_path / "package", {"csv_bench": CSV}, {"llmi.formats": {"csv": "csv_bench:Csv"}})
    yield
    loaders.cache_clear()


def test_a_format_of_another_package_is_found_by_the_file_or_by_name(csv_format: None, write: Write) -> None:
    text = "Herons,It names the heron.\nBoats,It names a boat.\n"
    for bench in (load(write(text, "b.csv")), load(write(text, "b.txt"), format_name="csv")):
        assert bench.kind == "rubric"
        assert [(one.item_id, one.task.question) for one in bench.entries] == [
            ("0001", "Herons"),
            ("0002", "Boats"),
        ]
    assert load(write([item()])).kind == "rubric"


def test_an_unknown_format_is_refused_with_the_known_ones(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"'csv' is not a benchmark format; known are llmi_bench, parquet "):
        load(write([item()]), format_name="csv")
