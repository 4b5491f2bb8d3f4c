"""The GPU check runs what the machine can, names what it cannot, and fails only for a section that failed."""

from __future__ import annotations

import subprocess

import pytest
from places import REPOSITORY

from coordinator.host.hardware import detect
from llmi.gpu_check import __main__ as program
from llmi.gpu_check.sections import SECTIONS, Section, forward_backward

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


def test_forward_and_backward_on_a_cpu() -> None:
    assert forward_backward("sdpa", device="cpu", tokens=32).startswith("loss 8.")
