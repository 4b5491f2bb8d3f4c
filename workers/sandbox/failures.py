"""The exit of one jailed job, as its zygote reports it, and the failure of a chart's request that it means.

Invariant: what an armed child does is the model's fault; what the jail or a busy machine does is an
infrastructure fault.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Literal, NoReturn

from pydantic import BaseModel

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.settings import CodeSettings

BUSY_FACTOR = 10.0  # times the wall limit: how long a job may take in all on a busy machine
_SLOW_CODE = 0.5  # of the CPU limit: code that used this much and is not done is slow itself
_LARGE_CODE = 0.25  # of the memory limit: code that used this much caused the lack of memory


class JobExit(BaseModel):
    """How a job ended, and what it used.

    - `end`: `frame`: the child returned a frame, of any content. `closed`: it ended without one. `silent`: it
      closed its pipe and still runs. `run`, `wall`, `output` or `files`: it exceeded that limit.
    - `armed`: whether the child had entered its jail. If not, `reason` says what failed.
    - `signal`: the signal that ended it, 0 for none.
    - `wall_s`: wall-clock seconds, including the clean-up. `run_s`: without the waits for a busy CPU.
    - `peak_mb`: largest memory use, without that of the zygote.
    """

    end: Literal["frame", "closed", "silent", "run", "wall", "output", "files"]
    armed: bool
    reason: str
    signal: int
    cpu_s: float
    wall_s: float
    run_s: float
    peak_mb: float


def raise_for(job: JobExit, settings: CodeSettings, layers: Mapping[str, bool], wall_s: float) -> None:
    """Raise the failure of a job that did not return a frame.

    `layers`: of the jail it ran in. `wall_s`: its time limit, in seconds. Raises `ModelFault` (CODE_RAISED,
    CODE_LIMIT) or `InfrastructureFault` (SANDBOX, TIMEOUT).
    """
    if not job.armed:
        raise InfrastructureFault(Cause.SANDBOX, f"a child could not enter its jail: {job.reason}")
    if job.end == "frame":
        return
    if job.end == "run":
        raise ModelFault(Cause.CODE_LIMIT, f"the code ran longer than {settings.wall_s:g} s")
    if job.end == "wall":
        _raise_for_waiting(job, settings, wall_s)
    if job.end == "silent":
        raise ModelFault(Cause.CODE_RAISED, "the code closed its result")
    if job.end == "output":
        raise ModelFault(Cause.CODE_LIMIT, "the code returned more than its figures can be")
    if job.end == "files":
        raise ModelFault(Cause.CODE_LIMIT, f"the code wrote more than {settings.output_mb} MB")
    if job.signal == signal.SIGXCPU or job.cpu_s >= settings.cpu_s:
        raise ModelFault(Cause.CODE_LIMIT, f"the code used more than {settings.cpu_s:g} s of CPU")
    if job.signal == signal.SIGKILL and layers.get("seccomp"):
        # Neither the zygote nor the child can have sent it: the machine ran out of memory before the child
        # reached its own limit.
        if job.peak_mb >= settings.memory_mb * _LARGE_CODE:
            detail = f"the code took {job.peak_mb:.0f} MB of memory, more than the machine has left"
            raise ModelFault(Cause.CODE_LIMIT, detail)
        raise InfrastructureFault(Cause.SANDBOX, "something outside the jail killed the child")
    name = f"was killed by {signal.Signals(job.signal).name}" if job.signal else "ended without a result"
    raise ModelFault(Cause.CODE_RAISED, f"the code's process {name}")


def _raise_for_waiting(job: JobExit, settings: CodeSettings, wall_s: float) -> NoReturn:
    """Raise the failure of a job that reached `wall_s` because it waited for a CPU."""
    waited_s = job.wall_s - job.run_s
    if job.cpu_s >= settings.cpu_s * _SLOW_CODE:
        detail = f"the code used {job.cpu_s:.1f} s of CPU within {wall_s:.1f} s and was not done"
        raise ModelFault(Cause.CODE_LIMIT, detail)
    if wall_s < settings.wall_s * BUSY_FACTOR:
        detail = (
            f"the request's deadline left {wall_s:.1f} s, of which the code waited {waited_s:.1f} for a CPU"
        )
        raise InfrastructureFault(Cause.TIMEOUT, detail)
    busy = f"the code waited {waited_s:.1f} of {wall_s:g} s for a CPU"
    raise InfrastructureFault(Cause.SANDBOX, f"{busy}; run fewer processes on its machine")
