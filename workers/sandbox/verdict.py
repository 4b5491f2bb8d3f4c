"""What a zygote says of a job: how it ended, and what it took."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Verdict(BaseModel):
    """How a job ended (`frame` when the child reported, whatever it reported), what it used, and how long it
    was ready to run and had no CPU. `armed`: the child had its jail on; if not, `reason` says what failed.
    """

    end: Literal["frame", "closed", "silent", "wall", "output", "files"]
    armed: bool
    reason: str
    signal: int
    cpu_s: float
    wall_s: float
    waited_s: float
