"""The worker's side of the jail: owns the zygote, hands it code, judges what comes back.

Invariants: nothing that a child sends is believed (figures are decoded and measured here); whatever an armed
child does is the model's fault, whatever the jail does is infrastructure's; a zygote that fails or does not
answer is killed and replaced; no code runs unless every required layer holds.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.sandbox import paths, protocol
from workers.sandbox.charts import dimensions
from workers.sandbox.limits import Limits
from workers.settings import CodeSettings

_BOOT_S = 120.0  # a cold disk under load; warm it takes about two seconds
_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill, clean up and answer
_CURES = {
    "landlock": "it needs Linux 5.13 or later with landlock among the active security modules",
    "seccomp": "it needs Linux with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "netns": "it needs user namespaces, or root with CAP_SYS_ADMIN",
}


class _Report(BaseModel):
    """A child's own words about its job. Untrusted."""

    status: Literal["drawn", "empty", "limit", "raised"]
    detail: str = Field(default="", max_length=4000)
    sizes: list[int] = Field(default=[], max_length=1000)


class _Verdict(BaseModel):
    """The zygote's words about a job: how it ended (`frame` when the child reported), and what it used."""

    end: Literal["frame", "closed", "wall", "output", "files"]
    armed: bool
    reason: str
    signal: int
    cpu_s: float
    wall_s: float


class Renderer:
    """Draws charts in the jail, one at a time. Start it in the process that uses it, never before a fork."""

    def __init__(self) -> None:
        self.layers: dict[str, bool] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: Any = None
        self._lock = threading.Lock()

    def start(self, settings: CodeSettings) -> None:
        """Start the zygote unless it runs. Raises `InfrastructureFault(SANDBOX)` when a required layer is
        missing.
        """
        with self._lock:
            self._start(settings)

    def render(
        self, code: str, settings: CodeSettings, *, seed: int = 0, wall_s: float | None = None
    ) -> list[bytes]:
        """The code's figures as PNG, in order of creation, at least one.

        `wall_s` shortens the settings' wall limit; running into that is a `TIMEOUT`, not the model's fault.
        Raises `ModelFault` (CODE_RAISED, CODE_LIMIT, NO_FIGURE) or `InfrastructureFault` (SANDBOX, TIMEOUT).
        """
        wall = settings.wall_s if wall_s is None else min(wall_s, settings.wall_s)
        limits = Limits(
            cpu_s=settings.cpu_s,
            wall_s=wall,
            memory_mb=settings.memory_mb,
            output_mb=settings.output_mb,
            max_figures=settings.max_figures,
            max_pixels=settings.max_pixels,
            seed=seed,
        )
        with self._lock:
            self._start(settings)
            request = protocol.pack(asdict(limits), code.encode("utf-8", "surrogatepass"))
            answer, frame = self._exchange(request, wall + _GRACE_S)
        verdict = _Verdict.model_validate(answer)
        if verdict.end == "wall" and wall < settings.wall_s:
            raise InfrastructureFault(Cause.TIMEOUT, f"only {wall:.1f} s were left of the request's deadline")
        _raise_for(verdict, settings, self.layers)
        return _figures(frame, settings)

    def close(self) -> None:
        """End the zygote and whatever it runs."""
        with self._lock:
            self._kill()

    def _start(self, settings: CodeSettings) -> None:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            self._process, self._stderr = _spawn()
            hello, _ = self._exchange(b"", _BOOT_S)
            self.layers = hello["layers"]
        missing = [name for name in settings.require if not self.layers.get(name)]
        if missing:
            cures = "; ".join(f"{name}: {_CURES[name]}" for name in missing)
            raise InfrastructureFault(
                Cause.SANDBOX,
                f"the jail lacks {', '.join(missing)}, which tools.code.require names. Give it ({cures}), or "
                "take it off tools.code.require and accept a weaker jail",
            )

    def _exchange(self, request: bytes, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and read the answer; a zygote that fails at either is killed."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + timeout_s
        try:
            if request:
                protocol.write_all(process.stdin.fileno(), request)
            output = process.stdout.fileno()
            size = protocol.length(_read(output, protocol.LENGTH_BYTES, deadline))
            return protocol.unpack(_read(output, size, deadline))
        except (OSError, EOFError, TimeoutError, protocol.FrameError) as error:
            words = self._last_words()
            self._kill()
            detail = f"the zygote failed ({type(error).__name__}) and is replaced: {words}"
            raise InfrastructureFault(Cause.SANDBOX, detail) from error
        except (
            BaseException
        ):  # an interrupted exchange (a soft time limit) would leave its answer to the next job
            self._kill()
            raise

    def _last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 1000))
        return self._stderr.read().decode(errors="replace").strip()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._stderr):
            if stream is not None:
                stream.close()


def layers() -> dict[str, bool]:
    """Which layers of the jail hold on this machine: landlock, seccomp, netns, private_root, unprivileged.

    Starts a short-lived process that tries each. Raises `InfrastructureFault(SANDBOX)` when even that fails.
    """
    process, stderr = _spawn("--probe")
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + _BOOT_S
        size = protocol.length(_read(process.stdout.fileno(), protocol.LENGTH_BYTES, deadline))
        return protocol.unpack(_read(process.stdout.fileno(), size, deadline))[0]["layers"]
    except (OSError, EOFError, TimeoutError, protocol.FrameError) as error:
        raise InfrastructureFault(
            Cause.SANDBOX, f"the jail's probe failed: {type(error).__name__}"
        ) from error
    finally:
        process.kill()
        process.communicate()
        stderr.close()


def _spawn(*arguments: str) -> tuple[subprocess.Popen[bytes], Any]:
    """A zygote with a clean environment, in a session of its own."""
    environment = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment |= {
        "PYTHONPATH": paths.PROJECT,
        "PYTHONHASHSEED": "0",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
    }
    if "LD_LIBRARY_PATH" in os.environ:  # where some machines keep what Python is linked against
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes it
    process = subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "workers.sandbox.zygote", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    return process, stderr


def _read(descriptor: int, count: int, deadline: float) -> bytes:
    """Exactly `count` bytes before the deadline. Raises `EOFError` or `TimeoutError`."""
    content = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) < count:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        chunk = os.read(descriptor, min(count - len(content), 1 << 20))
        if not chunk:
            raise EOFError
        content += chunk
    return bytes(content)


def _raise_for(verdict: _Verdict, settings: CodeSettings, layers: dict[str, bool]) -> None:
    """The failure of a job whose child did not report."""
    if not verdict.armed:
        raise InfrastructureFault(Cause.SANDBOX, f"a child could not put on its jail: {verdict.reason}")
    if verdict.end == "frame":
        return
    if verdict.end == "wall":
        raise ModelFault(Cause.CODE_LIMIT, f"the code ran longer than {settings.wall_s:g} s")
    if verdict.end in ("output", "files"):
        raise ModelFault(Cause.CODE_LIMIT, f"the code wrote more than {settings.output_mb} MB")
    if verdict.signal == signal.SIGXCPU or verdict.cpu_s >= settings.cpu_s:
        raise ModelFault(Cause.CODE_LIMIT, f"the code used more than {settings.cpu_s:g} s of CPU")
    if verdict.signal == signal.SIGKILL and layers.get("seccomp"):
        # Neither we nor the child can have sent it: the machine ran out of memory, below the child's own
        # limit.
        raise InfrastructureFault(Cause.SANDBOX, "something outside the jail killed the child")
    name = (
        f"was killed by {signal.Signals(verdict.signal).name}" if verdict.signal else "ended without a result"
    )
    raise ModelFault(Cause.CODE_RAISED, f"the code's process {name}")


def _figures(frame: bytes, settings: CodeSettings) -> list[bytes]:
    """The images of a child's frame, checked. A frame the runner would not have written is the code's
    tampering.
    """
    try:
        header, body = protocol.unpack(frame)
        report = _Report.model_validate(header)
    except (protocol.FrameError, ValidationError) as error:
        raise ModelFault(Cause.CODE_RAISED, "the code tampered with its result") from error
    causes = {"empty": Cause.NO_FIGURE, "limit": Cause.CODE_LIMIT, "raised": Cause.CODE_RAISED}
    if report.status != "drawn":
        raise ModelFault(causes[report.status], report.detail)
    images: list[bytes] = []
    start = 0
    for size in report.sizes[: settings.max_figures]:
        images.append(body[start : start + max(size, 0)])
        start += max(size, 0)
    if not images or not all(_is_png(image, settings.max_pixels) for image in images):
        raise ModelFault(Cause.CODE_RAISED, "the code tampered with its result")
    return images


def _is_png(image: bytes, max_pixels: int) -> bool:
    """Whether an image decodes as PNG and stays within the limit."""
    try:
        width, height = dimensions(image)
        if width * height > max_pixels:
            return False
        with Image.open(io.BytesIO(image), formats=("PNG",)) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
