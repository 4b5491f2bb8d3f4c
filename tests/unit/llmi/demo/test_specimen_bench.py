"""The project's own small benchmark: readable, repeatable, of every kind."""

from __future__ import annotations

from pathlib import Path

from evaluation.formats import load
from llmi.demo.evaluation import PICTURE_ITEMS, TEXT_ITEMS, write_bench


def test_it_is_a_benchmark_with_and_without_pictures(tmp_path: Path) -> None:
    bench = load(write_bench(tmp_path / "bench"))
    bench.check()
    assert [len(entry.images) for entry in bench.entries] == [0] * TEXT_ITEMS + [1] * PICTURE_ITEMS
    assert all(len(entry.criteria) == 4 for entry in bench.entries)
    assert all("{" not in text for entry in bench.entries for text in entry.criteria.values())


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    one, same, other = (write_bench(tmp_path / f"{n}", seed) for n, seed in enumerate((1, 1, 2)))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()
