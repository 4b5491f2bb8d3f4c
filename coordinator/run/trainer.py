"""The trainer of a run: verl's program as a child process, its output in a log file.

Invariants:
- It has a session of its own, so that Ctrl-C in the terminal reaches this process only, which stops it in
  order.
- It ends with this process.
- When it fails, the error holds the exception that ended it and the relevant lines of its log. The log does
  not end with the cause: exit handlers, threads and other processes fail after it, and because of it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.process.interpreter import PYTHON
from workers.process.parent_death import start_child

MODULE = "policy.train.main_ppo"
TAIL_LINES = 40
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ACTOR = re.compile(r"^\([^()]*pid=\d+[^()]*\) ?")
_START = "Traceback (most recent call last)"
# Printed before the traceback of an exception that did not end the process.
_IGNORED = ("Exception ignored in", "--- Logging error ---")
_ASIDE = ("Exception in thread", "Task exception was never retrieved", "Future exception was never retrieved")
_LINK = ("The above exception was the direct cause", "During handling of the above exception")
_END = re.compile(
    r"Traceback \(|Exception ignored|Exception in thread|Task exception|Future exception|Error executing job"
    r"|Set the environment variable HYDRA|--- Logging|The above exception|During handling of"
    r"|\d{4}-\d\d-\d\d |\[\d{4}-\d\d-\d\d |[IWEF]\d{4} |(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b"
)
_FOLLOWS = re.compile(  # the death of another process, or the end of this one
    r"^([\w.]+\.)?((ActorDied|ActorUnavailable|WorkerCrashed|OwnerDied|EngineDead|BrokenPipe|ConnectionReset"
    r"|Cancelled|EOF)Error|KeyboardInterrupt|SystemExit)\b|See root cause above"
)


class TrainerDied(RuntimeError):
    """The trainer ended with an error. The message holds the relevant lines of its log."""


class Trainer:
    """The child process: `start`, poll `running`, `check` when it ended, always `stop`.

    `module`: its program; empty: that of GRPO. `folder`: an empty working directory, since Ray's workers
    import from the folder in which a driver connected.
    """

    def __init__(
        self, overrides: Sequence[str], env: Mapping[str, str], log: Path, folder: Path, module: str = ""
    ):
        self._command = [*PYTHON, "-m", module or MODULE, *overrides]
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


@dataclass(frozen=True)
class _Block:
    """One traceback: its lines, and a rank; the higher, the likelier it is the cause."""

    lines: list[str]
    rank: int


def relevant_tail(text: str, lines: int = TAIL_LINES) -> str:
    """The traceback that ended the trainer, or the last lines when there is none; without colours and actor
    prefixes. Of a long one, the first quarter and the end of `lines` lines.
    """
    plain = _plain(text)
    found = _cause(plain) or plain[max(0, len(plain) - lines) :]
    if len(found) > lines:
        found = [*found[: lines // 4], f"... {len(found) - lines} lines ...", *found[-(lines - lines // 4) :]]
    return "\n".join(found)


def cause(text: str) -> str:
    """The exception that ended the trainer, in one line; empty when there is none."""
    return _exception(_cause(_plain(text)))


def _plain(text: str) -> list[str]:
    lines = (_ACTOR.sub("", _ANSI.sub("", line)).rstrip() for line in text.splitlines())
    return [line for line in lines if line.strip(" ^~")]


def _cause(plain: list[str]) -> list[str]:
    """The last traceback of the highest rank."""
    blocks = _blocks(plain)
    best = max((block.rank for block in blocks), default=0)
    return next((block.lines for block in reversed(blocks) if block.rank == best), [])


def _blocks(plain: list[str]) -> list[_Block]:
    found: list[_Block] = []
    for start, line in enumerate(plain):
        if not line.startswith(_START):
            continue
        end = start + 1
        while end < len(plain) and not _END.match(plain[end]):
            end += 1
        before, lines = plain[start - 1] if start else "", plain[start:end]
        if before.startswith(_LINK) and found:
            first = found.pop()
            rank = min(first.rank, 1) if first.rank < 2 else _rank("", lines)
            found.append(_Block([*first.lines, before, *lines], rank))
        else:
            found.append(_Block(lines, _rank(before, lines)))
    return found


def _rank(before: str, lines: list[str]) -> int:
    if before.startswith(_IGNORED) or len(lines) == 1:
        return 0
    if before.startswith(_ASIDE):
        return 1
    if _FOLLOWS.search(_exception(lines)):
        return 2
    return 4 if any("RayTaskError(" in line for line in lines) else 3


def _exception(lines: list[str]) -> str:
    """The line that names the exception: the first after the last frame."""
    frames = [index for index, line in enumerate(lines) if line.startswith("  ")]
    return next(iter(lines[frames[-1] + 1 :]), "") if frames else "".join(lines[-1:])
