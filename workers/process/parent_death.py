"""Starts a program that dies with the process that started it, however that one ends.

The kernel ties a child's death signal to the *thread* that made it, so all children are made by one thread
that lives as long as this process. The signal is set by a small launcher in the child itself, not by Python
code between fork and exec, which may deadlock in a process with threads.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workers.process.interpreter import PYTHON, child_environment

_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; survives exec
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


@functools.cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """The thread that starts children, one per process: it is not there any more in a fork."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="tether")


def start_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, output appended to `log`; SIGKILLed when this process ends.

    `env` is passed through `workers.process.interpreter.child_environment`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    launcher = [*PYTHON, "-S", "-E", "-c", _LAUNCHER, str(os.getpid()), *command]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                launcher,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(os.environ if env is None else env),
                cwd=cwd,
                start_new_session=True,
            )

    return _starter(os.getpid()).submit(start).result()
