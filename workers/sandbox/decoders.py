"""Decode images in the jail: zygotes that fork one child per image, and what their answers mean.

Invariants:
- each image is decoded in a process of its own, with limits on memory, CPU and time, without keys, files or
  network;
- of what that process sends only pixels are used, if their number fits the size they claim;
- however decoding one image ends, the next one finds a decoder;
- images from outside and images of the blob store have separate decoders, so that neither waits for the
  other.

Layers of the jail that this machine lacks are logged as a warning; the others are used.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import protocol
from workers.sandbox.failures import JobExit
from workers.sandbox.layers.limits import MEBIBYTE, Limits
from workers.sandbox.process import ZygoteProcess

logger = logging.getLogger(__name__)
Origin = Literal["outside", "store"]
AT_ONCE = 4  # decoders per process and origin; an idle one takes about 30 MB
LIMITS = Limits(  # output: see `decode`
    cpu_s=5.0, run_s=30.0, wall_s=30.0, memory_mb=1024, output_mb=1, files_mb=0
)
_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill the job, clean up and answer
_WAIT_S = 30.0  # for a free decoder
_BANDS = {"L": 1, "RGB": 3, "RGBA": 4}


class DecodeOptions(NamedTuple):
    """`max_pixels`: most pixels that a header may claim. `min_side`: smallest side it may claim, in pixels.
    `max_side`: larger images are scaled down to it.
    """

    max_pixels: int
    min_side: int
    max_side: int


class Decoded(NamedTuple):
    """An image in mode L, RGB or RGBA, without metadata. `lossy`: it came as JPEG or opaque WebP."""

    image: Image.Image
    lossy: bool


class _Report(BaseModel):
    """The header of a decoder's frame. Untrusted."""

    status: Literal["decoded", "refused", "memory"]
    detail: str = Field(default="", max_length=300)
    mode: Literal["L", "RGB", "RGBA"] = "L"
    size: tuple[int, int] = (0, 0)
    lossy: bool = False


class Decoders:
    """Up to `AT_ONCE` zygotes, started on demand.

    They end with the process that made them; use them there.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._idle: list[ZygoteProcess] = []
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def warm(self) -> None:
        """Start the first zygote. Raises `InfrastructureFault(SANDBOX)` when it does not start."""
        with self._zygote():
            pass

    def decode(self, data: bytes, options: DecodeOptions) -> Decoded:
        """Decode an image.

        Raises `InfrastructureFault`: BAD_ANSWER for data that is no image, an image that `options` exclude,
        or one that exceeds the limits; SANDBOX when the jail fails; TIMEOUT when every decoder is busy.
        """
        most = math.ceil(options.max_side**2 * max(_BANDS.values()) / MEBIBYTE)
        limits = replace(self._limits, output_mb=most)
        request = protocol.pack({"limits": asdict(limits), "options": options._asdict()}, data)
        with self._zygote() as zygote:
            answer, frame = zygote.exchange(request, limits.wall_s + _GRACE_S)
        job = JobExit.model_validate(answer)
        if not job.armed:
            detail = f"a decoder could not enter its jail: {job.reason}"
            raise InfrastructureFault(Cause.SANDBOX, detail)
        if job.end != "frame":
            raise InfrastructureFault(Cause.BAD_ANSWER, _end(job, limits))
        return _decoded(frame, options, limits)

    def close(self) -> None:
        """Kill the idle zygotes."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _zygote(self) -> Iterator[ZygoteProcess]:
        """Reserve a zygote for the block."""
        if not self._free.acquire(timeout=_WAIT_S):
            raise InfrastructureFault(Cause.TIMEOUT, f"every image decoder was busy for {_WAIT_S:g} s")
        try:
            zygote = self._idle_zygote() or _start()
            try:
                yield zygote
            finally:
                if zygote.alive:
                    self._idle.append(zygote)
                else:
                    zygote.close()
        finally:
            self._free.release()

    def _idle_zygote(self) -> ZygoteProcess | None:
        """Take an idle zygote that is alive; None when there is none."""
        while True:
            try:
                zygote = self._idle.pop()
            except IndexError:  # another thread may have taken the last
                return None
            if zygote.alive:
                return zygote
            zygote.close()


_of_processes: dict[tuple[int, Origin], Decoders] = {}
_lock = threading.Lock()


def of_this_process(origin: Origin = "outside") -> Decoders:
    """This process's decoders for images of `origin`; a forked process makes its own."""
    with _lock:
        return _of_processes.setdefault((os.getpid(), origin), Decoders())


def _start() -> ZygoteProcess:
    zygote = ZygoteProcess("images")
    if missing := [name for name, held in zygote.layers.items() if not held]:
        logger.warning("images are decoded without these layers of the jail: %s", ", ".join(missing))
    return zygote


def _end(job: JobExit, limits: Limits) -> str:
    """Why a decoder returned no frame, as a message."""
    if job.end in ("run", "wall"):
        return f"decoding it took longer than {limits.wall_s:g} s"
    if job.end in ("output", "files"):
        return f"decoding it gave more than {limits.output_mb} MB"
    if job.signal == signal.SIGXCPU or job.cpu_s >= limits.cpu_s:
        return f"decoding it took more than {limits.cpu_s:g} s of CPU"
    if job.signal:
        return f"its decoder was killed by {signal.Signals(job.signal).name}"
    return "its decoder ended without a result"


def _decoded(frame: bytes | memoryview, options: DecodeOptions, limits: Limits) -> Decoded:
    """Read the pixels of a decoder's frame; refuse one that `decoding.decode` would not have written."""
    try:
        header, body = protocol.unpack(frame)
        report = _Report.model_validate(header)
    except (protocol.FrameError, ValidationError) as error:
        raise InfrastructureFault(Cause.BAD_ANSWER, "its decoder was tampered with") from error
    if report.status == "memory":
        detail = f"decoding it takes more than {limits.memory_mb} MB of memory"
        raise InfrastructureFault(Cause.BAD_ANSWER, detail)
    if report.status == "refused":
        raise InfrastructureFault(Cause.BAD_ANSWER, report.detail)
    width, height = report.size
    fits = 0 < width <= options.max_side and 0 < height <= options.max_side
    if not fits or len(body) != width * height * _BANDS[report.mode]:
        raise InfrastructureFault(Cause.BAD_ANSWER, "its decoder was tampered with")
    return Decoded(Image.frombytes(report.mode, report.size, body), report.lossy)
