"""The zygote's own world, the jail's outer layer: what of the machine it has left, and who made it so.

Invariant: once it is sealed, nothing in it can be written to but the folder of the job that runs, which is
gone afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from workers.sandbox import kernel

JOB = "job"  # below the base, where jobs' folders are mounted
Maker = Literal["bubblewrap", "namespaces", "none"]


@dataclass(frozen=True)
class World:
    """`network`: cut off from every interface; `processes`: the zygote is the first of its own, so that all
    others die with it, and nobody outside is visible; `base`: the folder below which a private root can be
    written, empty without a private root; `mounts`: the zygote can mount there.
    """

    maker: Maker
    network: bool = False
    processes: bool = False
    base: str = ""
    mounts: bool = False

    def seal(self) -> None:
        """Make the whole root read-only, for good: jobs get a mount each. Without mounts there is only the
        base, which is emptied after each job.
        """
        if self.mounts:
            os.makedirs(os.path.join(self.base, JOB), exist_ok=True)
            kernel.make_read_only(self.base)
