"""Draw charts in the jail: send code to a zygote, and read the figures from its answer.

Invariants:
- of what a child sends only pixels are used, if their number fits the size they claim; they are encoded here;
- a zygote that fails or does not answer is killed and replaced;
- no code runs unless every required layer of the jail is active.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import failures, protocol
from workers.sandbox.figures import Drawing, read_figures
from workers.sandbox.jail_report import JailReport, missing_layers
from workers.sandbox.job_exit import JobExit
from workers.sandbox.layers.limits import MEBIBYTE, Limits
from workers.sandbox.process import ZygoteProcess
from workers.settings import CodeSettings

_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill the job, clean up and answer


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
    ) -> Drawing:
        """Run the code and return its figures.

        `wall_s`: time limit in seconds, including the time that the code waits for a CPU. Reaching it before
        the code had the settings' `wall_s` to itself is a `TIMEOUT`, not the model's fault. `waited` is
        called with the seconds that were not the code's: until a zygote was ready, and while other processes
        had the CPU. Raises `ModelFault` (CODE_RAISED, CODE_LIMIT, NO_FIGURE) or `InfrastructureFault`
        (SANDBOX, TIMEOUT).
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
            answer, frame = zygote.exchange(request, wall + _GRACE_S)
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
