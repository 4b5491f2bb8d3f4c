"""Shifts the wall clock of processes under test, by a small C library that is compiled here.

Monotonic clocks and sleeps stay true (`wall_clock.c`).
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

SHIFT_S = 60
COMPILE_S = 60.0


def available() -> bool:
    """Whether clocks can be shifted: there is a C compiler."""
    return shutil.which("cc") is not None


def shifted(seconds: int) -> dict[str, str]:
    """The environment of a process whose wall clock is `seconds` ahead; empty without a compiler."""
    if not available():
        return {}
    return {"LD_PRELOAD": str(_library()), "WALL_CLOCK_SHIFT_S": str(seconds)}


@functools.cache
def _library() -> Path:
    """Compiled once for this process, in a folder that stays until the machine clears its temporary files."""
    library = Path(tempfile.mkdtemp(prefix="llmi-clock-")) / "wall_clock.so"
    with as_file(files("llmi.load.testbed") / "wall_clock.c") as source:
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, timeout=COMPILE_S)
    return library
