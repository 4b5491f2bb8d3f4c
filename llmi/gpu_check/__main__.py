"""`python -m llmi.gpu_check`: run every section that this machine can, and print one line for each.

Exit code 1 when a section failed; one that lacks a GPU or a package is no failure. Nothing is fetched from a
network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from coordinator.console.terminal import make_console, print_line
from coordinator.host.hardware import detect
from llmi.gpu_check.child import STOP_S, interruptible, run
from llmi.gpu_check.sections import SECTIONS, Section
from workers.process.interpreter import PYTHON, child_environment

PROGRAM = "llmi.gpu_check"
LIMIT_S = 900.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def main(arguments: list[str]) -> int:
    """Run all sections; with an argument, only the section of that number, in this process."""
    interruptible()
    if arguments:
        print_line(make_console(), SECTIONS[int(arguments[0])].run(), markup=False)
        return 0
    console, gpus = make_console(), len(detect().gpus)
    failed = False
    for number, section in enumerate(SECTIONS):
        if why := section.lacking(gpus):
            print_line(console, f"{section.name}: not run: {why}", markup=False)
            continue
        line, passed = checked(number, section)
        failed |= not passed
        print_line(console, line, markup=False)
    return int(failed)


def checked(number: int, section: Section) -> tuple[str, bool]:
    """Run a section in a child process. Returns its line, and whether it passed."""
    began = time.monotonic()
    command = [*PYTHON, "-m", PROGRAM, str(number)]
    env = {**child_environment(os.environ), **OFFLINE}
    try:
        done = run(command, env, LIMIT_S, stop_s=STOP_S + 30)  # the section may be stopping `llmi train`
    except subprocess.TimeoutExpired:
        return f"{section.name}: failed: not done after {LIMIT_S:.0f} s", False
    if done.returncode:
        return f"{section.name}: failed (exit code {done.returncode}):\n{done.stderr[-4000:]}", False
    measured = (done.stdout.strip().splitlines() or [""])[-1]
    return f"{section.name}: ok, {time.monotonic() - began:.1f} s ({measured})", True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
