"""Parts that a configuration names by a prefix, found by entry points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import install

from coordinator.config import parts
from workers.errors import ConfigError

MODULE = """
from pathlib import Path

def resolved(raw, source):
    return {name: value.replace("atlas:", "/atlas/") for name, value in raw.items()}

def missing(document):
    return (name for name, value in document.items() if value.startswith("/atlas/"))

def command(document):
    return "draw-atlas"
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    parts.providers.cache_clear()
    yield
    parts.providers.cache_clear()


def test_a_package_adds_parts_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, tmp_path, {"atlas_parts": MODULE}, {parts.GROUP: {"atlas": "atlas_parts"}})

    document = parts.resolved({"library": "atlas:world", "model": "llama3:8b"}, "run.yaml")

    assert document == {"library": "/atlas/world", "model": "llama3:8b"}
    assert list(parts.missing(document)) == ["library"]
    assert parts.command(document) == "draw-atlas"


def test_the_demo_is_one_of_them():
    assert parts.find(parts.DEMO, "--config").command({}) == "llmi evaluate demo"


def test_a_configuration_of_the_demo_without_its_package_names_file_and_field(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(parts, "entry_points", lambda group: [])

    with pytest.raises(
        ConfigError, match=r"run.yaml: tools.search.library: no installed package provides demo:"
    ):
        parts.resolved({"tools": {"search": {"library": "demo:library"}}}, "run.yaml")
    with pytest.raises(ConfigError, match="--text-model: no installed package"):
        parts.find(parts.DEMO, "--text-model")


def test_nothing_missing_needs_no_command():
    assert parts.command({"model": "Qwen/Qwen3-4B"}) == ""
