"""Child processes of the check, which are stopped in order when the check does not wait for their end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

STOP_S = 60.0  # `llmi train` needs some seconds to stop Ray, workers and Redis


def interruptible() -> None:
    """Raise `KeyboardInterrupt` at SIGTERM, and at SIGINT even where the shell ignores it."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)


def run(
    command: Sequence[str], env: Mapping[str, str], limit_s: float | None = None, stop_s: float = STOP_S
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured output. After `limit_s`, or when interrupted, it sends SIGTERM to the
    child, and SIGKILL `stop_s` later.

    The child has a session of its own, since `llmi train` kills its processes at a second signal, and Ctrl-C
    would be one.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException:
            process.terminate()
            try:
                process.communicate(timeout=stop_s)  # reads on: a full pipe would block the child
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
