"""A zygote's process, seen from the worker: start it, exchange frames with it, end it.

Invariants: it starts with a clean environment in a session of its own; every exchange has a deadline; a
zygote that fails at an exchange, or whose exchange is interrupted, is killed, so that no answer is ever
taken for another job's.
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
from typing import Any

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import protocol
from workers.sandbox.layers import paths
from workers.sandbox.layers.folder import remove_tree
from workers.sandbox.layers.world import Maker

_DYING_S = 2.0  # for a job whose zygote was killed
_BOOT_S = 120.0  # a cold disk under load; warm it takes about two seconds


class ZygoteProcess:
    """Starts at once; `trade` is what it is for (`zygote.TRADES`, or `probe`); `layers` and `maker` (of the
    outer ones) are what its hello says. `pid` may be of the process that waits for it. Raises
    `InfrastructureFault(SANDBOX)`.
    """

    def __init__(self, trade: str) -> None:
        bubblewrap = shutil.which("bwrap")
        options = (trade, "--bubblewrap", bubblewrap) if bubblewrap else (trade,)
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

    def exchange(self, request: bytes, timeout_s: float) -> tuple[dict[str, Any], memoryview]:
        """Send a request and read its answer. Raises `InfrastructureFault(SANDBOX)` and kills it when it
        fails.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        try:
            _write(self._process.stdin.fileno(), request, deadline)
            output = self._process.stdout.fileno()
            size = protocol.length(_read(output, protocol.LENGTH_BYTES, deadline))
            return protocol.unpack(_read(output, size, deadline))
        except (OSError, EOFError, protocol.FrameError) as error:  # a time-out is an OSError
            words = self._last_words()
            self.close()
            detail = f"the zygote failed ({type(error).__name__}) and is replaced: {words}"
            raise InfrastructureFault(Cause.SANDBOX, detail) from error
        except BaseException:  # a soft time limit, Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """Kill it and whatever it runs, and remove the folder that it made where it had no private root."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        """Its job, if it has one, is dying, and may still create a file or two."""
        deadline = time.monotonic() + _DYING_S
        while time.monotonic() < deadline:
            try:
                return remove_tree(self._folder)
            except FileNotFoundError:
                return None
            except OSError:
                time.sleep(0.01)
        return None

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 1000))
        return self._stderr.read().decode(errors="replace").strip()


def _environment() -> dict[str, str]:
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment |= {"PYTHONPATH": paths.PROJECT, "PYTHONHASHSEED": "0"}
    environment["MALLOC_ARENA_MAX"] = "1"  # else a thread takes 128 MB of a job's address space for its own
    environment |= {"LANG": "C.UTF-8", "HOME": "/nonexistent"}
    if "LD_LIBRARY_PATH" in os.environ:  # where some machines keep what Python is linked against
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment


def _write(descriptor: int, data: bytes, deadline: float) -> None:
    """All of `data` before the deadline, to a pipe that does not block. Raises `OSError`."""
    view = memoryview(data)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while view:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, count: int, deadline: float) -> bytearray:
    """Exactly `count` bytes before the deadline. Raises `EOFError` or `TimeoutError`."""
    content = bytearray(count)
    view = memoryview(content)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while view:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        got = os.readv(descriptor, [view])
        if not got:
            raise EOFError
        view = view[got:]
    return content
