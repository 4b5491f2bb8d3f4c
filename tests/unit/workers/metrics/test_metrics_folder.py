"""The folder of a worker's metrics is removed when its owner ends, also when it is killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.metrics.folder import MetricsFolder, remove_orphans

OWNER = """
import time
from workers.metrics.folder import MetricsFolder
folder = MetricsFolder()
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_remove_removes_the_folder_and_may_be_called_twice() -> None:
    folder = MetricsFolder()
    assert folder.path.is_dir()
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


def test_the_folder_is_removed_when_its_owner_is_garbage_collected() -> None:
    path = MetricsFolder().path
    assert not path.exists()


def test_only_folders_of_killed_owners_are_removed() -> None:
    mine = MetricsFolder()
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (theirs / "counter_1.db").write_bytes(b"1")
        remove_orphans()
        assert theirs.is_dir()
        other.kill()
        other.wait()
    remove_orphans()
    assert not theirs.exists()
    assert mine.path.is_dir()
