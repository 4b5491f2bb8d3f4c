"""Run a program of a rehearsal in a process of its own, so that its large imports end with it.

A program answers on stdout. With exit code `UNUSABLE`, the answer is what is wrong with the configuration, as
JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence

from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.interpreter import PYTHON, child_environment

UNUSABLE = 2
LIMIT_S = 600.0  # usually under a minute; a model's small files may have to be downloaded
TAIL = 2000  # characters of the output in a message


def run(module: str, arguments: Sequence[str], failed: str, late: str) -> str:
    """The answer of `python -m module arguments`. `failed`, `late`: what to say when it fails or ends late.

    Raises `ConfigError`, and `InfrastructureFault` after `LIMIT_S`.
    """
    command, env = [*PYTHON, "-m", module, *arguments], child_environment(os.environ)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise InfrastructureFault(Cause.TIMEOUT, f"not done within {LIMIT_S:.0f} s: {late}") from None
    if done.returncode == UNUSABLE and done.stdout:
        raise ConfigError(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        raise ConfigError(f"{failed}:\n{done.stderr[-TAIL:]}")
    return done.stdout
