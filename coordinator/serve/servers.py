"""Model servers as child processes: started together, polled until healthy, watched, stopped together.

Invariants:
- A server is ready when its health endpoint answered.
- When one server ends, the others are stopped too, and the error holds the end of its log.
- No server outlives this process.
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

from coordinator.serve.serving import ServerSpec
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.parent_death import start_child

ASK_S = 5.0
POLL_S = 0.5
STOP_S = 20.0
TAIL = 3000


class Servers:
    """A context manager: starts all servers on entry and stops them on exit. Logs are `<name>.log`."""

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
                    f"{one.url}: a server answers there already; stop it, or choose another port"
                )
        for one in self._served:
            process = start_child(one.command, log=self.log(one), env={**os.environ, **one.env})
            self._running.append((one, process))
        return self

    def __exit__(self, *exc_info: object) -> None:
        deadline = time.monotonic() + STOP_S
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # all processes of its session
            process.wait()

    def log(self, one: ServerSpec) -> Path:
        return self._logs / f"{one.name.split(' (')[0].replace(' ', '-')}.log"

    def wait_ready(
        self,
        timeout_s: float,
        ready: Callable[[ServerSpec], None],
        waiting_for: Callable[[ServerSpec], None] = lambda one: None,
    ) -> None:
        """Wait until all are healthy. Raises `InfrastructureFault` at the time-out, or when a server ends.

        `ready`: called with each server that became healthy. `waiting_for`: called at each poll with one that
        is not.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(self._served)
        while waiting:
            self.check()
            for one in [one for one in waiting if _answers(one)]:
                waiting.remove(one)
                ready(one)
            if waiting:
                waiting_for(waiting[0])
            if waiting and time.monotonic() > deadline:
                why = f"{waiting[0].name} does not answer at {waiting[0].health} after {timeout_s:.0f} s"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{why}; {self._tail(waiting[0])}")
            time.sleep(POLL_S if waiting else 0)

    def last_line(self, one: ServerSpec) -> str:
        """The last line of its log, which shows the progress of loading; empty without a log."""
        try:
            with self.log(one).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
                lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def check(self) -> None:
        """Raise `InfrastructureFault` when a server has ended."""
        for one, process in self._running:
            if process.poll() is not None:
                why = f"{one.name} ended with exit code {process.returncode}"
                raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{why}; {self._tail(one)}")

    def watch(self) -> None:
        """Block until a server ends. Raises as `check`."""
        while True:
            self.check()
            time.sleep(POLL_S)

    def _tail(self, one: ServerSpec) -> str:
        log = self.log(one)
        return f"{log} ends:\n{log.read_text(errors='replace', encoding='utf-8')[-TAIL:]}"


# Without the proxy of the environment: the servers are on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(one: ServerSpec) -> bool:
    try:
        with _DIRECT.open(one.health, timeout=ASK_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
