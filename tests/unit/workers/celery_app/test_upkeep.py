"""A log that has grown is cut back while others write to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config.pools import MEMORY_MB, PoolSettings
from workers.celery_app.upkeep import cut


def test_a_log_below_its_limit_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("12345")
    assert not cut(log, 5)
    assert log.read_text() == "12345"
    assert not cut(tmp_path / "absent.log", 5)


def test_a_log_above_its_limit_is_kept_once_and_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first\n")
        assert cut(log, 5)
        writer.write(b"second\n")
        assert log.read_bytes() == b"second\n", "no hole where the first was"
        assert (tmp_path / "a.log.1").read_bytes() == b"first\n"
        assert cut(log, 5)
        assert (tmp_path / "a.log.1").read_bytes() == b"second\n"


def test_a_process_knows_the_file_that_it_writes_to(tmp_path: Path) -> None:
    log = tmp_path / "b.log"
    command = [sys.executable, "-c", "from workers.celery_app.upkeep import own_log; print(own_log())"]
    with log.open("ab") as output:
        subprocess.run(command, stdout=output, check=True)
    assert log.read_text().strip() == str(log)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "None"


@pytest.mark.parametrize(
    ("queues", "given", "limit"),
    [
        (("code",), None, MEMORY_MB),
        (("search", "judge_text"), None, MEMORY_MB),
        (("diffusion",), None, 0),
        (("evaluate",), None, 0),
        (("diffusion",), 9, 9),
        (("code",), 0, 0),
    ],
)
def test_processes_that_load_no_model_are_limited(
    queues: tuple[str, ...], given: int | None, limit: int
) -> None:
    assert PoolSettings(queues=queues, memory_mb=given).limit_mb == limit
