"""The virtual environments of the contestants that need packages from PyPI, below `.cache/queue-bench`.

Invariant: an environment is used only when its installation was complete; else it is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from llmi.load.queue.contestants import Contestant
from workers.errors import Cause, InfrastructureFault
from workers.process.interpreter import child_environment
from workers.storage.cache import cache_folder

COMPLETE = "complete"  # a file in an environment
INSTALL_S = 300.0


def python_of(contestant: Contestant) -> Path:
    """The interpreter that runs `contestant`. Its environment is made on first use.

    Raises `InfrastructureFault(PROVIDER_DOWN)` when PyPI does not deliver its packages.
    """
    if not contestant.packages:
        return Path(sys.executable)
    wanted = hashlib.sha256(f"{sys.version}\n{contestant.packages}".encode()).hexdigest()[:12]
    folder = cache_folder() / "queue-bench" / f"{contestant.name}-{wanted}"
    python = folder / "bin" / "python"
    if not (folder / COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], contestant)
        _run([str(python), "-m", "pip", "install", "--quiet", *contestant.packages], contestant)
        (folder / COMPLETE).touch()
    return python


def _run(command: list[str], contestant: Contestant) -> None:
    env = child_environment({**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    try:
        subprocess.run(
            command, check=True, capture_output=True, env=env, text=True, encoding="utf-8", timeout=INSTALL_S
        )
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or "no output").splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        return
    detail = f"{contestant.name} is left out, since {', '.join(contestant.packages)} did not install: {why}"
    raise InfrastructureFault(Cause.PROVIDER_DOWN, detail)
