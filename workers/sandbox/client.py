"""The worker's side of the jail: owns the zygote, hands it code, judges what comes back.

Invariants: nothing that a child sends is believed but pixels whose number fits the size they claim, which are
encoded here; whatever an armed
child does is the model's fault, whatever the jail or a busy machine does is infrastructure's; a zygote that
fails or does not answer is killed and replaced; no code runs unless every required layer holds.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import NamedTuple, NoReturn

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.sandbox import protocol
from workers.sandbox.figures import Drawing, opened
from workers.sandbox.layers.limits import MEBIBYTE, Limits
from workers.sandbox.layers.world import Maker
from workers.sandbox.process import ZygoteProcess
from workers.sandbox.verdict import Verdict
from workers.settings import CodeSettings

_BUSY = 10.0  # times the wall limit: how long code may take in all on a busy machine
_ENOUGH = 0.5  # of the CPU limit: code that had so much and is not done is slow itself
_MUCH = 0.25  # of the memory limit: code that took so much is why the memory ran out
_GRACE_S = 10.0  # beyond the wall limit, for the zygote to kill, clean up and answer
_NAMESPACES = "it needs bubblewrap, user namespaces, or root with CAP_SYS_ADMIN"
_CURES = {
    "landlock": "it needs Linux 5.13 or later with landlock among the active security modules",
    "seccomp": "it needs Linux with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "netns": _NAMESPACES,
    "private_root": _NAMESPACES,
    "processes": _NAMESPACES,
    "files": "it needs a mount of its own in the private root, or landlock and seccomp of Linux 5.5 or later "
    "that nothing else in this container listens to",
    "unprivileged": "it needs a worker that is not root, or root that may become another user, and a Python "
    "that others can read",
}


class Held(NamedTuple):
    """What of the jail a machine gives. `layers`: landlock and seccomp, the inner one; netns, private_root
    and processes, the outer one, made by `maker`; unprivileged; files: code has a folder, and the kernel
    bounds it.
    """

    layers: dict[str, bool]
    maker: Maker

    def __str__(self) -> str:
        held = [name for name, holds in self.layers.items() if holds]
        missing = [name for name, holds in self.layers.items() if not holds]
        outer = "without an outer layer" if self.maker == "none" else f"in {self.maker}"
        return f"{outer}; held: {', '.join(held) or 'nothing'}" + f"; not held: {', '.join(missing)}" * bool(
            missing
        )


class Renderer:
    """Draws charts in the jail, one at a time. Start it in the process that uses it, never before a fork."""

    def __init__(self) -> None:
        self._zygote: ZygoteProcess | None = None
        self._lock = threading.Lock()

    def start(self, settings: CodeSettings) -> None:
        """Start the zygote unless it runs. Raises `InfrastructureFault(SANDBOX)` when a required layer is
        missing.
        """
        with self._lock:
            self._started(settings)

    def render(
        self,
        code: str,
        settings: CodeSettings,
        *,
        seed: int = 0,
        wall_s: float | None = None,
        waited: Callable[[float], None] = lambda _: None,
    ) -> Drawing:
        """The code's figures.

        `wall_s`: how long it may take, a busy machine included; running into that before the code had all of
        the settings' `wall_s` to itself is a `TIMEOUT`, not the model's fault. `waited` is called with the
        seconds that were not the code's: until a zygote was ready, and while others had the CPU. Raises
        `ModelFault` (CODE_RAISED, CODE_LIMIT, NO_FIGURE) or `InfrastructureFault` (SANDBOX, TIMEOUT).
        """
        busy_s = settings.wall_s * _BUSY
        wall = busy_s if wall_s is None else min(wall_s, busy_s)
        raw_mb = math.ceil(settings.max_pixels * len("RGBA") / MEBIBYTE)
        limits = Limits(settings.cpu_s, settings.wall_s, wall, settings.memory_mb, raw_mb, settings.output_mb)
        order = {"max_figures": settings.max_figures, "max_pixels": settings.max_pixels, "seed": seed}
        request = protocol.pack(
            {"limits": asdict(limits), "order": order}, code.encode("utf-8", "surrogatepass")
        )
        began = time.monotonic()
        with self._lock:
            zygote = self._started(settings)
            answer, frame = zygote.exchange(request, wall + _GRACE_S)
        verdict = Verdict.model_validate(answer)
        waited(max(0.0, time.monotonic() - began - verdict.run_s))
        _raise_for(verdict, settings, zygote.layers, wall)
        return opened(frame, settings)

    @property
    def held(self) -> Held:
        """By the zygote that runs. Raises `AssertionError` before `start`."""
        assert self._zygote is not None
        return Held(self._zygote.layers, self._zygote.maker)

    def close(self) -> None:
        """End the zygote and whatever it runs."""
        with self._lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None

    def _started(self, settings: CodeSettings) -> ZygoteProcess:
        if self._zygote is None or not self._zygote.alive:
            if self._zygote is not None:
                self._zygote.close()
            self._zygote = None
            self._zygote = ZygoteProcess("charts")
        if problem := lacking(settings, self._zygote.layers):
            raise InfrastructureFault(Cause.SANDBOX, problem)
        return self._zygote


def probe() -> Held:
    """What this machine gives, found out by a short-lived process that tries each layer. Raises
    `InfrastructureFault(SANDBOX)` when even that fails.
    """
    zygote = ZygoteProcess("probe")
    zygote.close()
    return Held(zygote.layers, zygote.maker)


def lacking(settings: CodeSettings, held: Mapping[str, bool]) -> str:
    """The required layers that do not hold, and the cure; empty when all do."""
    missing = [name for name in settings.require if not held.get(name)]
    if not missing:
        return ""
    return (
        f"the jail lacks {', '.join(missing)}, which tools.code.require names. Give it ({_cures(missing)}), "
        "or take it off tools.code.require and accept a weaker jail"
    )


def _cures(missing: Iterable[str]) -> str:
    named: dict[str, list[str]] = {}
    for name in missing:
        named.setdefault(_CURES[name], []).append(name)
    return "; ".join(f"{', '.join(names)}: {cure}" for cure, names in named.items())


def _raise_for(verdict: Verdict, settings: CodeSettings, layers: dict[str, bool], wall_s: float) -> None:
    """The failure of a job whose child did not report, `wall_s` at most after it began."""
    if not verdict.armed:
        raise InfrastructureFault(Cause.SANDBOX, f"a child could not put on its jail: {verdict.reason}")
    if verdict.end == "frame":
        return
    if verdict.end == "run":
        raise ModelFault(Cause.CODE_LIMIT, f"the code ran longer than {settings.wall_s:g} s")
    if verdict.end == "wall":
        _raise_for_waiting(verdict, settings, wall_s)
    if verdict.end == "silent":
        raise ModelFault(Cause.CODE_RAISED, "the code closed its result")
    if verdict.end == "output":
        raise ModelFault(Cause.CODE_LIMIT, "the code handed back more than its figures can be")
    if verdict.end == "files":
        raise ModelFault(Cause.CODE_LIMIT, f"the code wrote more than {settings.output_mb} MB")
    if verdict.signal == signal.SIGXCPU or verdict.cpu_s >= settings.cpu_s:
        raise ModelFault(Cause.CODE_LIMIT, f"the code used more than {settings.cpu_s:g} s of CPU")
    if verdict.signal == signal.SIGKILL and layers.get("seccomp"):
        # Neither we nor the child can have sent it: the machine ran out of memory, below the child's own
        # limit.
        if verdict.peak_mb >= settings.memory_mb * _MUCH:
            detail = f"the code took {verdict.peak_mb:.0f} MB of memory, more than the machine has left"
            raise ModelFault(Cause.CODE_LIMIT, detail)
        raise InfrastructureFault(Cause.SANDBOX, "something outside the jail killed the child")
    name = (
        f"was killed by {signal.Signals(verdict.signal).name}" if verdict.signal else "ended without a result"
    )
    raise ModelFault(Cause.CODE_RAISED, f"the code's process {name}")


def _raise_for_waiting(verdict: Verdict, settings: CodeSettings, wall_s: float) -> NoReturn:
    """The failure of a job that was not done in its time, most of which it waited for a CPU."""
    waited_s = verdict.wall_s - verdict.run_s
    if verdict.cpu_s >= settings.cpu_s * _ENOUGH:
        detail = f"the code used {verdict.cpu_s:.1f} s of CPU within {wall_s:.1f} s and was not done"
        raise ModelFault(Cause.CODE_LIMIT, detail)
    if wall_s < settings.wall_s * _BUSY:
        detail = (
            f"the request's deadline left {wall_s:.1f} s, of which the code waited {waited_s:.1f} for a CPU"
        )
        raise InfrastructureFault(Cause.TIMEOUT, detail)
    busy = f"the code waited {waited_s:.1f} of {wall_s:g} s for a CPU"
    raise InfrastructureFault(Cause.SANDBOX, f"{busy}; run fewer processes on its machine")
