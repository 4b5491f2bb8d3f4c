"""What a zygote says of a job: how it ended, and what it took."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Verdict(BaseModel):
    """How a job ended (`frame` when the child reported, whatever it reported; `run`, `wall`: by which of
    these limits), and what it used: `run_s` on the clock, clean-up included, but not the time in which others
    kept it from a CPU; `peak_mb` of memory at once, beyond the zygote's own. `armed`: the child had its jail
    on; if not, `reason` says what failed.
    """

    end: Literal["frame", "closed", "silent", "run", "wall", "output", "files"]
    armed: bool
    reason: str
    signal: int
    cpu_s: float
    wall_s: float
    run_s: float
    peak_mb: float
