"""The process of a zygote: start it, exchange frames with it, kill it.

Invariants:
- it starts with a clean environment, in a session of its own;
- every exchange has a deadline;
- a zygote is killed when an exchange fails, is cancelled or is interrupted, so that an answer never goes to
  another job.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import protocol
from workers.sandbox.layers import paths
from workers.sandbox.layers.folder import remove_tree
from workers.sandbox.layers.outer import Maker

CANCEL_POLL_S = 0.25
_EXIT_S = 2.0  # for a job to exit after its zygote was killed
_BOOT_S = 120.0  # a cold disk under load; warm it takes about two seconds


class ZygoteProcess:
    """A running zygote.

    `kind`: one of `zygote.JOB_KINDS`, or `probe`. `layers` and `maker` come from its first message
    (see `jail_report.JailReport`). `pid` may be that of a parent that only waits for it. Raises
    `InfrastructureFault(SANDBOX)` when it does not start.
    """

    def __init__(self, kind: str) -> None:
        bubblewrap = shutil.which("bwrap")
        options = (kind, "--bubblewrap", bubblewrap) if bubblewrap else (kind,)
        self._folder = os.path.join(tempfile.gettempdir(), f"llmi-code-{uuid.uuid4().hex}")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "workers.sandbox.jailed.zygote", self._folder, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        for pipe in (self._process.stdin, self._process.stdout):
            protocol.widen(pipe.fileno())
        self.pid = self._process.pid
        hello, _ = self.exchange(b"", _BOOT_S)
        self.layers: dict[str, bool] = hello["layers"]
        self.maker: Maker = hello["maker"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def exchange(
        self, request: bytes, timeout_s: float, cancelled: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, Any], memoryview]:
        """Send a request and return the header and body of its answer.

        timeout_s: seconds for both.
        cancelled: returns whether the answer is not needed any more; called every `CANCEL_POLL_S`.

        Raises `InfrastructureFault` after killing the zygote: SANDBOX when it fails, CANCELLED when
        `cancelled` says so.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wait = _Wait(time.monotonic() + timeout_s, cancelled)
        try:
            _write(self._process.stdin.fileno(), request, wait)
            output = self._process.stdout.fileno()
            size = protocol.length(_read(output, protocol.LENGTH_BYTES, wait))
            return protocol.unpack(_read(output, size, wait))
        except (OSError, EOFError, protocol.FrameError) as error:  # a time-out is an OSError
            printed = self._last_output()
            self.close()
            detail = f"the zygote failed ({type(error).__name__}) and is replaced: {printed}"
            raise InfrastructureFault(Cause.SANDBOX, detail) from error
        except BaseException:  # cancelled, a soft time limit, Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """Kill the zygote and its job, and remove its folder if it made one (without a private root)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        """Retry while a job that is being killed still creates files."""
        deadline = time.monotonic() + _EXIT_S
        while time.monotonic() < deadline:
            try:
                return remove_tree(self._folder)
            except FileNotFoundError:
                return None
            except OSError:
                time.sleep(0.01)
        return None

    def _last_output(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 1000))
        return self._stderr.read().decode(errors="replace").strip()


def _environment() -> dict[str, str]:
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment |= {"PYTHONPATH": paths.PROJECT, "PYTHONHASHSEED": "0"}
    environment["MALLOC_ARENA_MAX"] = "1"  # else each thread reserves 128 MB of a job's address space
    environment |= {"LANG": "C.UTF-8", "HOME": "/nonexistent"}
    if "LD_LIBRARY_PATH" in os.environ:  # Python may be linked against libraries there
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment


@dataclass(frozen=True)
class _Wait:
    """Waits for a pipe: at most until `deadline` (monotonic seconds), and until `cancelled`."""

    deadline: float
    cancelled: Callable[[], bool]

    def until_ready(self, poll: select.poll) -> None:
        """Raises `TimeoutError` and `InfrastructureFault(CANCELLED)`."""
        while True:
            if self.cancelled():
                raise InfrastructureFault(Cause.CANCELLED, "the request was cancelled")
            left_s = self.deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if poll.poll(min(left_s, CANCEL_POLL_S) * 1000):
                return


def _write(descriptor: int, data: bytes, wait: _Wait) -> None:
    """Write all of `data` to a non-blocking pipe. Raises `OSError`, and what `wait` raises."""
    view = memoryview(data)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while view:
        wait.until_ready(poll)
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, count: int, wait: _Wait) -> bytearray:
    """Read exactly `count` bytes. Raises `EOFError`, and what `wait` raises."""
    content = bytearray(count)
    view = memoryview(content)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while view:
        wait.until_ready(poll)
        got = os.readv(descriptor, [view])
        if not got:
            raise EOFError
        view = view[got:]
    return content
