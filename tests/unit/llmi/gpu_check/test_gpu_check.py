"""The GPU check runs what the machine can, names what it cannot, and fails only for a section that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from places import REPOSITORY
from waiting import WAIT_S, wait_until

from coordinator.host.hardware import detect
from llmi.gpu_check import __main__ as program
from llmi.gpu_check.sections import SECTIONS, Section, forward_backward
from workers.storage.cache import CACHE_ENV

FINE = Section("fine", lambda: "fine")


def test_without_a_gpu_no_section_runs_and_the_check_passes() -> None:
    if detect().gpus:
        pytest.skip("this machine has GPUs; the check would run")
    done = subprocess.run([REPOSITORY / "ops/gpu_check.sh"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{section.name}: not run: no GPU" for section in SECTIONS]
    assert done.returncode == 0, done.stderr


def test_what_is_missing_is_named() -> None:
    two = Section("two", lambda: "", gpus=2, packages=("absent_module", "json"))
    assert two.lacking(0) == "no GPU"
    assert two.lacking(1) == "2 GPUs needed, 1 here"
    assert two.lacking(2) == "absent_module not installed"
    assert FINE.lacking(1) == ""


def test_a_section_that_fails_says_why_and_fails_the_check() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("the section would pass")
    number = next(at for at, section in enumerate(SECTIONS) if "torch" in section.name)
    line, passed = program.checked(number, SECTIONS[number])
    assert not passed
    assert line.startswith(f"{SECTIONS[number].name}: failed (exit code 1)")
    assert "CUDA" in line


def test_a_section_that_takes_too_long_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LIMIT_S", 0.1)
    line, passed = program.checked(0, SECTIONS[0])
    assert (line, passed) == (f"{SECTIONS[0].name}: failed: not done after 0 s", False)
    assert not [one for one in psutil.Process().children() if program.PROGRAM in one.cmdline()]


# In place of `llmi train`: creates `started`, and `stopped` at SIGTERM.
TRAIN = """#!{python}
import pathlib, signal, sys
folder = pathlib.Path(sys.argv[2])
def stop(*_):
    (folder / "stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / "started").touch()
while True:
    signal.pause()
"""
SECTION = """
import pathlib, sys
import llmi.demo.parts
from llmi.gpu_check import __main__ as program, sections
folder = pathlib.Path(sys.argv[1])
sys.executable = str(folder / "python")
llmi.demo.parts.services = lambda *_: (folder, {})
sections.random_model = lambda model: model
program.SECTIONS = (sections.Section("train", lambda: sections.train("sync")),)
program.main(["0"])
"""


def test_a_section_that_is_stopped_stops_its_run_and_leaves_no_folder(tmp_path: Path) -> None:
    llmi = tmp_path / "llmi"
    llmi.write_text(TRAIN.format(python=sys.executable))
    llmi.chmod(0o755)
    cache = tmp_path / "cache"
    cache.mkdir()
    command = [sys.executable, "-c", SECTION, str(tmp_path)]
    section = subprocess.Popen(command, env={**os.environ, CACHE_ENV: str(cache)})
    try:
        wait_until((tmp_path / "started").exists)
        assert len(list(cache.iterdir())) == 1
    finally:
        section.terminate()
    section.wait(WAIT_S)
    assert (tmp_path / "stopped").exists()
    assert list(cache.iterdir()) == []


def test_forward_and_backward_on_a_cpu() -> None:
    assert forward_backward("sdpa", device="cpu", tokens=32).startswith("loss 8.")
