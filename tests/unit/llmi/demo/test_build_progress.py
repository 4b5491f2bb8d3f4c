"""Building the demo's parts shows the progress of each, in a pipe too."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.console.stages import Stages
from llmi.demo import build as building
from llmi.demo.build import BuildFailed, Parts, build


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=10_000)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "cache", "text", 1)


def child(*received: tuple[str, str, float | None, str]):
    """Stands in for the process that builds."""

    def run(parts, pipe, parent) -> None:
        for message in received:
            pipe.send(message)

    return run


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Print every line at once, and fork the child, so that it has the patches of the test."""
    import multiprocessing

    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(building.multiprocessing, "get_context", lambda _kind: fork)
    monkeypatch.setattr(building, "Stages", lambda console: Stages(console, every_s=0.0))
    return monkeypatch


def test_each_part_and_its_progress_are_shown_in_a_pipe(
    patched: pytest.MonkeyPatch, parts: Parts, console: Console
) -> None:
    steps = child(
        ("stage", "drawing", None, ""),
        ("stage", "teaching", 0.0, "writing 9,000 documents"),
        ("stage", "teaching", 0.5, "step 375 of 750, loss 1.20"),
        ("done", str(parts.cache / "tiny"), None, ""),
    )
    patched.setattr(building, "_child", steps)
    assert build(parts, console) == parts.cache / "tiny"
    assert lines(console) == [
        "drawing",
        "teaching: writing 9,000 documents",
        "teaching: step 375 of 750, loss 1.20, 0 s",
    ]


def test_a_child_that_fails_says_why(patched: pytest.MonkeyPatch, parts: Parts, console: Console) -> None:
    patched.setattr(building, "_child", child(("failed", "OSError: full", None, "")))
    with pytest.raises(BuildFailed, match="full"):
        build(parts, console)


def test_the_warning_of_a_slow_machine_is_one_line(
    patched: pytest.MonkeyPatch, parts: Parts, console: Console
) -> None:
    patched.setattr(building, "_child", child(("done", f"{parts.cache}/tiny-cut-short", None, "")))
    build(parts, console)
    assert lines(console) == [building.CUT_SHORT]


def test_drawing_the_library_and_teaching_tell_shares_that_grow(tmp_path: Path) -> None:
    from llmi.demo.library import build_library

    shares: list[float] = []
    build_library(tmp_path / "library", progress=shares.append)
    assert len(shares) > 100
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] < 1
