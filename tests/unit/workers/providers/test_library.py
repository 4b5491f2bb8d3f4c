"""The local image library: drawn repeatably, found by words, safe against any query."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from pathlib import Path

import provider_calls
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llmi.demo.library import build_library
from workers.errors import Cause, ConfigError, InfrastructureFault, ModelFault
from workers.providers.search import library
from workers.settings import SearchSettings
from workers.text import full_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("pictures") / "library", seed=0)


def look(folder: Path, query: str) -> library.Made:
    return provider_calls.search(query, SearchSettings(library=str(folder)), deadline=time.time() + 5)


def words(caption: str) -> list[str]:
    return re.findall(r"\w+", caption.lower())


def test_the_library_holds_captioned_images_of_one_size(folder: Path) -> None:
    entries = [json.loads(line) for line in (folder / library.CAPTIONS).read_text().splitlines()]
    assert len(entries) == 128
    assert {Image.open(folder / entry["file"]).size for entry in entries} == {(192, 144)}
    assert len({entry["caption"] for entry in entries}) == 128


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("photos of landmarks in Kyoto", "Kyoto"),
        ("Eiffel tower", "Paris"),
        ("photos of a fox in a forest", "fox in a forest"),
        ("an OTTER on an island?!", "otter in an island"),
        ("Roma or Rome at night", "Rome, at night"),
        ("pyramid", "pyramids"),
    ],
)
def test_the_best_match_comes_first(folder: Path, query: str, words: str) -> None:
    made = look(folder, query)
    assert words in str(made.source["caption"])
    assert "built-in image library" in str(made.source["origin"])
    assert Image.open(io.BytesIO(made.image)).size == (192, 144)


def test_the_same_query_gives_the_same_picture(folder: Path) -> None:
    assert look(folder, "tiger").image == look(folder, "tiger").image


@pytest.mark.parametrize("query", ["quantum chromodynamics", "a photo of the", "", "?!", '"', "NEAR(", "*"])
def test_no_hit_is_the_models_fault(folder: Path, query: str) -> None:
    with pytest.raises(ModelFault) as caught:
        look(folder, query)
    assert caught.value.cause is Cause.NO_HIT


def test_stop_words_of_a_caption_are_no_hit(tmp_path: Path) -> None:
    """Regression: the original took any image. A caption must share a word that is no stop word."""
    mine = own_library(tmp_path, '{"file": "pond.png", "caption": "View of the pond in a picture by Anna"}')
    assert library.best_match(mine, "photos showing views of the sea in pictures by some") is None
    assert library.best_match(mine, "the ponds") is not None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_hit_shares_a_content_word_with_the_query(folder: Path, data: st.DataObject) -> None:
    captions = [json.loads(line)["caption"] for line in (folder / library.CAPTIONS).read_text().splitlines()]
    known = sorted({word for caption in captions for word in words(caption)} - full_text.STOP_WORDS)
    spoken = st.sampled_from([*known, *sorted(full_text.STOP_WORDS), "quark", "zeppelin"])
    asked = set(data.draw(st.lists(spoken, max_size=6)))
    found = library.best_match(folder, " ".join(asked))
    if asked & set(known):
        assert found is not None
        assert asked & set(words(found.caption)) - full_text.STOP_WORDS
    else:
        assert found is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=200))
def test_no_query_text_is_a_syntax_error(folder: Path, text: str) -> None:
    for query in (text, f'fox" OR {text} NEAR(', f"fox {text}"):
        found = library.best_match(folder, query)
        assert found is None or (folder / found.file).exists()
    assert library.best_match(folder, f"fox {text}") is not None


def test_building_again_changes_nothing_and_another_seed_other_pictures(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert build_library(folder, seed=0) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    again, other = build_library(tmp_path / "again", seed=0), build_library(tmp_path / "other", seed=1)
    assert (again / "100.png").read_bytes() == (folder / "100.png").read_bytes()
    assert (other / "100.png").read_bytes() != (folder / "100.png").read_bytes()


def test_another_version_is_replaced_and_a_strangers_folder_is_not(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "manifest.json").write_text('{"library": "llmi", "seed": 0, "drawn_by": "another version"}')
    (old / "000.png").unlink()
    build_library(old, seed=0)
    assert (old / "000.png").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"old", ".old.lock"}
    foreign = tmp_path / "holiday"
    foreign.mkdir()
    (foreign / "beach.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holiday"):
        build_library(foreign, seed=0)
    assert (foreign / "beach.jpg").read_bytes() == b"mine"


def own_library(folder: Path, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / library.CAPTIONS).write_text("\n".join(lines))
    return folder


def test_a_users_library_needs_only_captions(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "pond.jpg")
    mine = own_library(tmp_path, '{"file": "pond.jpg", "caption": "A quiet pond"}')
    assert look(mine, "ponds").source["caption"] == "A quiet pond"
    own_library(tmp_path, '{"file": "pond.jpg", "caption": "A noisy lake"}')
    assert library.best_match(mine, "pond") is None, "the index must follow the captions"


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85"])
def test_a_caption_may_hold_any_separator_but_a_line_feed(tmp_path: Path, sign: str) -> None:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "pond.jpg")
    line = json.dumps({"file": "pond.jpg", "caption": f"A quiet{sign}pond"}, ensure_ascii=False)
    mine = own_library(tmp_path, f"\ufeff{line}\r")
    assert look(mine, "pond").source["caption"] == f"A quiet{sign}pond"


@pytest.mark.parametrize("file", ["../secret.png", "a\\u0000.png"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "secret.png")
    mine = own_library(tmp_path / "mine", f'{{"file": "{file}", "caption": "secret"}}')
    with pytest.raises(InfrastructureFault, match="outside"):
        look(mine, "secret")


@pytest.mark.parametrize(
    ("lines", "words"),
    [((), "names no image"), (("{}",), "line 1"), (('{"file": "a", "caption": "b"}', "nonsense"), "line 2")],
)
def test_wrong_captions_are_named(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        library.ensure_index(own_library(tmp_path, *lines))


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"captions\.jsonl"):
        library.best_match(tmp_path / "nowhere", "fox")
