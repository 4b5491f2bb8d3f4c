"""A log that has grown is rotated while others write to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workers.process.log_rotation import rotate


def test_a_log_below_its_limit_is_not_rotated(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("12345")
    assert not rotate(log, 5)
    assert log.read_text() == "12345"
    assert not rotate(tmp_path / "absent.log", 5)


def test_a_log_above_its_limit_is_emptied_and_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first\n")
        assert rotate(log, 5)
        writer.write(b"second\n")
        assert log.read_bytes() == b"second\n", "no hole where the first was"
        assert (tmp_path / "a.log.1").read_bytes() == b"first\n"
        assert rotate(log, 5)
        assert (tmp_path / "a.log.1").read_bytes() == b"second\n"


def test_own_log_is_the_file_behind_standard_output(tmp_path: Path) -> None:
    log = tmp_path / "b.log"
    command = [sys.executable, "-c", "from workers.process.log_rotation import own_log; print(own_log())"]
    with log.open("ab") as output:
        subprocess.run(command, stdout=output, check=True)
    assert log.read_text().strip() == str(log)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "None"
