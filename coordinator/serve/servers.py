"""Starts model servers, waits until each really answers, keeps watch, and stops all of them together.

Invariants: "ready" was seen, not assumed; when one server ends, the others are stopped too and the error
holds the end of its log; nothing that was started outlives this process.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from coordinator.serve.serving import ServerSpec
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.parent_death import start_child

ASK_S = 5.0
POLL_S = 0.5
STOP_S = 20.0
TAIL = 3000


class Servers:
    """A context manager: on entry all are being started, on exit none is left. Logs are `<name>.log`."""

    def __init__(self, served: Sequence[ServerSpec], logs: Path):
        self._served = served
        self._logs = logs
        self._running: list[tuple[ServerSpec, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Servers:
        for one in self._served:
            if shutil.which(one.command[0]) is None:
                raise ConfigError(
                    f"{one.command[0]}: no such program; install it in an environment of its own and put "
                    "its bin folder in PATH"
                )
            if _answers(one):
                raise ConfigError(
                    f"{one.url}: something answers there already; stop it, or choose another port"
                )
        for one in self._served:
            process = start_child(one.command, log=self.log(one), env={**os.environ, **one.env})
            self._running.append((one, process))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + STOP_S
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what is left of its own session
            process.wait()

    def log(self, one: ServerSpec) -> Path:
        return self._logs / f"{one.name.split(' (')[0].replace(' ', '-')}.log"

    def wait_ready(
        self,
        timeout_s: float,
        say: Callable[[ServerSpec], None],
        look: Callable[[ServerSpec], None] = lambda one: None,
    ) -> None:
        """Returns when all are healthy; `say` gets each as it comes up, `look` at each poll one that has not.
        Raises `InfrastructureFault`."""
        deadline = time.monotonic() + timeout_s
        waiting = list(self._served)
        while waiting:
            self.check()
            for one in [one for one in waiting if _answers(one)]:
                waiting.remove(one)
                say(one)
            if waiting:
                look(waiting[0])
            if waiting and time.monotonic() > deadline:
                why = f"{waiting[0].name} does not answer at {waiting[0].health} after {timeout_s:.0f} s"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{why}; {self._tail(waiting[0])}")
            time.sleep(POLL_S if waiting else 0)

    def last_line(self, one: ServerSpec) -> str:
        """The last line of its log, which shows how far loading is; empty without a log."""
        try:
            with self.log(one).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
                lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def check(self) -> None:
        """Raises `InfrastructureFault` when a server has ended."""
        for one, process in self._running:
            if process.poll() is not None:
                why = f"{one.name} ended with exit code {process.returncode}"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{why}; {self._tail(one)}")

    def watch(self) -> None:
        """Until a server ends. Raises as `check`."""
        while True:
            self.check()
            time.sleep(POLL_S)

    def _tail(self, one: ServerSpec) -> str:
        log = self.log(one)
        return f"{log} ends:\n{log.read_text(errors='replace', encoding='utf-8')[-TAIL:]}"


# On this machine, whatever proxy the environment names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(one: ServerSpec) -> bool:
    try:
        with _DIRECT.open(one.health, timeout=ASK_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
