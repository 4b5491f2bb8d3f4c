"""Draw charts in the jail: send code to a zygote, and read the figures from its answer.

Invariants:
- of what a child sends only pixels are used, if their number fits the size they claim; every image is encoded
  here, from pixels, and large enough for a judge;
- a frame that `drawing.draw` would not have written counts as tampering by the code;
- a zygote that fails or does not answer is killed and replaced;
- no code runs unless every required layer of the jail is active.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Literal, NamedTuple

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.pixels import is_too_small
from workers.sandbox import failures, protocol
from workers.sandbox.failures import JobExit
from workers.sandbox.jail_report import JailReport, missing_layers
from workers.sandbox.layers.limits import MEBIBYTE, Limits
from workers.sandbox.process import ZygoteProcess
from workers.settings import CodeSettings

_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill the job, clean up and answer
_COMPRESSION = 1  # zlib level: two thirds of the time of the default, for some 15% more bytes
_CAUSES = {
    "empty": Cause.NO_FIGURE,
    "limit": Cause.CODE_LIMIT,
    "raised": Cause.CODE_RAISED,
    "glyphs": Cause.GLYPH_MISSING,
}
_Side = Annotated[int, Field(ge=1, lt=2**31)]


class Drawing(NamedTuple):
    """`images`: the figures that were kept, at least one, as PNG in order of creation.

    `drawn`: the number of all.
    """

    images: list[bytes]
    drawn: int


class _Report(BaseModel):
    """The header of a child's frame. Untrusted. `figures`: mode, width and height of each."""

    status: Literal["drawn", "empty", "limit", "raised", "glyphs"]
    detail: str = Field(default="", max_length=4000)
    figures: list[tuple[Literal["RGB", "RGBA"], _Side, _Side]] = Field(default=[], max_length=1000)
    drawn: int = Field(default=0, ge=0, lt=2**31)


def read_figures(frame: memoryview, settings: CodeSettings) -> Drawing:
    """The figures of a child's frame.

    Raises `ModelFault`: NO_FIGURE, GLYPH_MISSING, CODE_LIMIT or CODE_RAISED.
    """
    try:
        header, body = protocol.unpack(frame)
        report = _Report.model_validate(header)
    except (protocol.FrameError, ValidationError) as error:
        raise _tampered() from error
    if report.status != "drawn":
        raise ModelFault(_CAUSES[report.status], report.detail)
    images: list[bytes] = []
    for picture in _pictures(report, body, settings):
        images.append(_png(picture))
        if sum(map(len, images)) > settings.output_mb * MEBIBYTE:
            raise ModelFault(Cause.CODE_LIMIT, f"the figures take more than {settings.output_mb} MB as PNG")
    return Drawing(images, max(report.drawn, len(images)))


def _pictures(report: _Report, body: memoryview, settings: CodeSettings) -> Iterator[Image.Image]:
    """The figures one at a time, since each may be large; all sizes are checked before the first.

    Raises `ModelFault` if the first, which is the document's image, is too small or too oblong; others are
    skipped.
    """
    sizes = [width * height * len(mode) for mode, width, height in report.figures]
    pixels = sum(width * height for _, width, height in report.figures)
    honest = 0 < len(sizes) <= settings.max_figures and pixels <= settings.max_pixels
    if not honest or sum(sizes) != len(body):
        raise _tampered()
    start = 0
    for (mode, width, height), size in zip(report.figures, sizes, strict=True):
        # A judge would fail on such an image, and the sample would be masked.
        if not is_too_small(width, height):
            yield Image.frombytes(mode, (width, height), body[start : start + size])
        elif start == 0:
            raise ModelFault(
                Cause.CODE_LIMIT, f"a figure of {width} x {height} pixels is too small or too narrow"
            )
        start += size


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()


def _tampered() -> ModelFault:
    return ModelFault(Cause.CODE_RAISED, "the code tampered with its result")


class Renderer:
    """Draws one chart at a time. Start it in the process that uses it, never before a fork."""

    def __init__(self) -> None:
        self._zygote: ZygoteProcess | None = None
        self._lock = threading.Lock()

    def start(self, settings: CodeSettings) -> None:
        """Start the zygote unless it runs.

        Raises `InfrastructureFault(SANDBOX)` if a required layer is missing.
        """
        with self._lock:
            self._running_zygote(settings)

    def render(
        self,
        code: str,
        settings: CodeSettings,
        *,
        seed: int = 0,
        wall_s: float | None = None,
        waited: Callable[[float], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Drawing:
        """Run the code and return its figures.

        `wall_s`: time limit in seconds, including the time that the code waits for a CPU. Reaching it before
        the code had the settings' `wall_s` to itself is a `TIMEOUT`, not the model's fault. `waited` is
        called with the seconds that were not the code's: until a zygote was ready, and while other processes
        had the CPU. `cancelled`: returns whether the figures are not needed any more; the zygote and the code
        are then killed. Raises `ModelFault` (CODE_RAISED, CODE_LIMIT, NO_FIGURE) or `InfrastructureFault`
        (SANDBOX, TIMEOUT, CANCELLED).
        """
        busy_s = settings.wall_s * failures.BUSY_FACTOR
        wall = busy_s if wall_s is None else min(wall_s, busy_s)
        raw_mb = math.ceil(settings.max_pixels * len("RGBA") / MEBIBYTE)
        limits = Limits(settings.cpu_s, settings.wall_s, wall, settings.memory_mb, raw_mb, settings.output_mb)
        options = {"max_figures": settings.max_figures, "max_pixels": settings.max_pixels, "seed": seed}
        request = protocol.pack(
            {"limits": asdict(limits), "options": options}, code.encode("utf-8", "surrogatepass")
        )
        began = time.monotonic()
        with self._lock:
            zygote = self._running_zygote(settings)
            answer, frame = zygote.exchange(request, wall + _GRACE_S, cancelled)
        job = JobExit.model_validate(answer)
        waited(max(0.0, time.monotonic() - began - job.run_s))
        failures.raise_for(job, settings, zygote.layers, wall)
        return read_figures(frame, settings)

    @property
    def jail(self) -> JailReport:
        """The jail of the running zygote. Raises `AssertionError` before `start`."""
        assert self._zygote is not None
        return JailReport(self._zygote.layers, self._zygote.maker)

    def close(self) -> None:
        """Kill the zygote and its job."""
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def _running_zygote(self, settings: CodeSettings) -> ZygoteProcess:
        if self._zygote is None or not self._zygote.alive:
            if self._zygote is not None:
                self._zygote.close()
            self._zygote = None
            self._zygote = ZygoteProcess("charts")
        if problem := missing_layers(settings, self._zygote.layers):
            raise InfrastructureFault(Cause.SANDBOX, problem)
        return self._zygote
