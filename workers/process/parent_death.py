"""Starts a program with a parent-death signal: it is killed when the process that started it ends.

The kernel binds this signal to the *thread* that created the child, so one thread that lives as long as this
process creates all children. A small launcher in the child sets the signal: Python code between fork and exec
may deadlock in a process with threads.
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
    sys.exit("the parent process has ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""


@functools.cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """The thread that starts children. One per process: threads do not survive a fork."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")


def start_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, appending its output to `log`. It gets SIGKILL when this process
    ends.

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
