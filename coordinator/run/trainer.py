"""The trainer of a run: verl's program as a child process, its output in a log file.

Invariants:
- It has a session of its own, so that Ctrl-C in the terminal reaches this process only, which stops it in
  order.
- It ends with this process.
- When it fails, the error holds the relevant lines of its log.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.run.trainer_log import cause, relevant_tail
from workers.process.interpreter import PYTHON
from workers.process.parent_death import start_child

MODULE = "policy.train.main_ppo"


class TrainerDied(RuntimeError):
    """The trainer ended with an error. The message holds the relevant lines of its log."""


class Trainer:
    """The child process: `start`, poll `running`, `check` when it ended, always `stop`.

    `folder`: an empty working directory, since Ray's workers import from the folder in which a driver
    connected.
    """

    def __init__(self, overrides: Sequence[str], env: Mapping[str, str], log: Path, folder: Path):
        self._command = [*PYTHON, "-m", MODULE, *overrides]
        self._env = {**os.environ, **env}
        self.log = log
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = start_child(self._command, log=self.log, env=self._env, cwd=self._folder)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raise `TrainerDied` when it ended with an error. Call it when it no longer runs."""
        code = self._process.returncode if self._process else None
        if code:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            text = self.log.read_text(encoding="utf-8", errors="replace")
            why = f": {found}" if (found := cause(text)) else ""
            tail = relevant_tail(text)
            raise TrainerDied(f"the trainer ended with {how}{why}\nFrom {self.log}:\n{tail}")

    def stop(self, deadline_s: float = 10.0) -> None:
        """SIGTERM to its process group, SIGKILL after the deadline."""
        if self._process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            os.killpg(self._process.pid, sign)
            try:
                self._process.wait(timeout=deadline_s)
            except subprocess.TimeoutExpired:
                continue
