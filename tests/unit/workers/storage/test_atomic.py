"""Atomic writes to a local folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.storage.atomic import save


@pytest.mark.parametrize("durable", [False, True])
def test_save_replaces_the_file_and_creates_its_folder(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    save(path, b"old", durable=durable)
    save(path, "ü", durable=durable)
    assert path.read_text(encoding="utf-8") == "ü"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_keeps_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    save(path, "old")

    def fail(part: Path, target: Path) -> Path:
        assert part.read_text() == "new"
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        save(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save(tmp_path / "open", "x")
        save(tmp_path / "private", "x", mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("open", "private")] == [0o644, 0o600]
