"""A child process that is controlled by lines on its stdin and stdout.

Invariants: no line is waited for longer than a given time; the child is killed at the end of its context.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from workers.errors import Cause, InfrastructureFault
from workers.process.interpreter import child_environment


class LineChild:
    """Made by `line_child`."""

    def __init__(self, process: subprocess.Popen[str], log: Path):
        self._process = process
        self._log = log

    def write(self, line: str) -> None:
        """Send a line. A child that has ended is noticed by `read`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def read(self, timeout_s: float) -> str:
        """The next line. Raises `InfrastructureFault` if the child ends, or is killed after `timeout_s`."""
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            end = self._log.read_text(encoding="utf-8", errors="replace")[-1000:].strip()
            why = f"a benchmark process ended, or took longer than {timeout_s:g} s; {self._log} ends: {end}"
            raise InfrastructureFault(Cause.INTERNAL, why)
        return line.strip()


@contextlib.contextmanager
def line_child(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[LineChild]:
    """Start `command`; its stderr is appended to `log`. It should end when its stdin is closed."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=child_environment(env),
            text=True,
            encoding="utf-8",
        )
    with process:  # closes both pipes
        try:
            yield LineChild(process, log)
        finally:
            process.kill()
