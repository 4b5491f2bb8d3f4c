"""The exit of one jailed job, as its zygote reports it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class JobExit(BaseModel):
    """How a job ended, and what it used.

    `end`: `frame`: the child returned a frame, whatever is in it; `closed`: it ended without one; `silent`:
    it closed its pipe and still runs; `run`, `wall`, `output`, `files`: it exceeded that limit. `armed`: the
    child had entered its jail; if not, `reason` says what failed. `signal`: the one that ended it, 0 for
    none. `run_s`: wall-clock seconds including the clean-up, without those in which other processes kept it
    from a CPU; `wall_s`: with them. `peak_mb`: most memory at once, beyond the zygote's own.
    """

    end: Literal["frame", "closed", "silent", "run", "wall", "output", "files"]
    armed: bool
    reason: str
    signal: int
    cpu_s: float
    wall_s: float
    run_s: float
    peak_mb: float
