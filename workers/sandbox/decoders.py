"""The worker's side of decoding: zygotes that decode pictures in jailed forks, and what their answers mean.

Invariants: a picture is decoded in a process of its own, which is forked for it and ends with it, with
bounded memory, CPU and time, without keys, files or network; nothing that it says is believed but pixels
whose number fits the size they claim; whatever becomes of it, the next picture finds a decoder; pictures from
outside have decoders of their own, so that those of the blob store do not wait for them. The layers of
the jail that this machine gives are put on, and those that it lacks are told in the log.
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
from workers.sandbox.layers.limits import MEBIBYTE, Limits
from workers.sandbox.process import ZygoteProcess
from workers.sandbox.verdict import Verdict

logger = logging.getLogger(__name__)
Origin = Literal["outside", "store"]
AT_ONCE = 4  # decoders of a process for each origin; each takes about 30 MB while it waits
LIMITS = Limits(  # output: see `decode`
    cpu_s=5.0, run_s=30.0, wall_s=30.0, memory_mb=1024, output_mb=1, files_mb=0
)
_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill, clean up and answer
_WAIT_S = 30.0  # for a decoder, while others use them all
_BANDS = {"L": 1, "RGB": 3, "RGBA": 4}


class Order(NamedTuple):
    """Pixels that a header may claim; the smallest side it must, and the largest that comes out, in
    pixels.
    """

    max_pixels: int
    min_side: int
    max_side: int


class Decoded(NamedTuple):
    """L, RGB or RGBA, without anything but its pixels; `lossy`: it was a photograph, as JPEG or WebP."""

    image: Image.Image
    lossy: bool


class _Report(BaseModel):
    """A decoder's own words about its picture. Untrusted."""

    status: Literal["decoded", "refused", "memory"]
    detail: str = Field(default="", max_length=300)
    mode: Literal["L", "RGB", "RGBA"] = "L"
    size: tuple[int, int] = (0, 0)
    lossy: bool = False


class Decoders:
    """Up to `AT_ONCE` zygotes, each started when it is first needed. Use them in the process that made them:
    they end with it.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._idle: list[ZygoteProcess] = []
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def warm(self) -> None:
        """Start the first zygote. Raises `InfrastructureFault(SANDBOX)` when it does not start."""
        with self._one():
            pass

    def decode(self, data: bytes, order: Order) -> Decoded:
        """The picture in `data`.

        Raises `InfrastructureFault`: BAD_ANSWER for what is no picture, not a wanted one, or too much for
        the limits; SANDBOX when the jail itself fails; TIMEOUT when others keep every decoder busy.
        """
        most = math.ceil(order.max_side**2 * max(_BANDS.values()) / MEBIBYTE)
        limits = replace(self._limits, output_mb=most)
        request = protocol.pack({"limits": asdict(limits), "order": order._asdict()}, data)
        with self._one() as zygote:
            answer, frame = zygote.exchange(request, limits.wall_s + _GRACE_S)
        verdict = Verdict.model_validate(answer)
        if not verdict.armed:
            detail = f"a decoder could not put on its jail: {verdict.reason}"
            raise InfrastructureFault(Cause.SANDBOX, detail)
        if verdict.end != "frame":
            raise InfrastructureFault(Cause.BAD_ANSWER, _end(verdict, limits))
        return _decoded(frame, order, limits)

    def close(self) -> None:
        """End the zygotes that no thread is using."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _one(self) -> Iterator[ZygoteProcess]:
        """A zygote that nobody else has until the block ends."""
        if not self._free.acquire(timeout=_WAIT_S):
            raise InfrastructureFault(Cause.TIMEOUT, f"every decoder of pictures was busy for {_WAIT_S:g} s")
        try:
            zygote = self._taken() or _started()
            try:
                yield zygote
            finally:
                if zygote.alive:
                    self._idle.append(zygote)
                else:
                    zygote.close()
        finally:
            self._free.release()

    def _taken(self) -> ZygoteProcess | None:
        """One of those at rest that are not dead, None when there is none."""
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
    """This process's decoders of pictures of that origin; a fork makes its own."""
    with _lock:
        return _of_processes.setdefault((os.getpid(), origin), Decoders())


def _started() -> ZygoteProcess:
    zygote = ZygoteProcess("pictures")
    if missing := [name for name, held in zygote.layers.items() if not held]:
        logger.warning("pictures are decoded without these layers of the jail: %s", ", ".join(missing))
    return zygote


def _end(verdict: Verdict, limits: Limits) -> str:
    """How a decoder ended that did not report, and which limit that was."""
    if verdict.end in ("run", "wall"):
        return f"decoding it took longer than {limits.wall_s:g} s"
    if verdict.end in ("output", "files"):
        return f"decoding it gave more than {limits.output_mb} MB"
    if verdict.signal == signal.SIGXCPU or verdict.cpu_s >= limits.cpu_s:
        return f"decoding it took more than {limits.cpu_s:g} s of CPU"
    if verdict.signal:
        return f"its decoder was killed by {signal.Signals(verdict.signal).name}"
    return "its decoder ended without a result"


def _decoded(frame: bytes | memoryview, order: Order, limits: Limits) -> Decoded:
    """The pixels of a decoder's frame, if it is one that `decoding.decode` would have written."""
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
    fits = 0 < width <= order.max_side and 0 < height <= order.max_side
    if not fits or len(body) != width * height * _BANDS[report.mode]:
        raise InfrastructureFault(Cause.BAD_ANSWER, "its decoder was tampered with")
    return Decoded(Image.frombytes(report.mode, report.size, body), report.lossy)
