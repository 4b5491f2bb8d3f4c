"""The queue table: which kinds of job there are, which queue each travels on, and what a worker of it needs.

Invariant: one kind, one queue of the same name; adding a kind is one line here and one registered job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resource = Literal["cpu", "gpu", "network"]


@dataclass(frozen=True)
class QueueSpec:
    """`resource` is what a worker slot occupies; `timeout_s` is the default time from posting to outcome."""

    name: str
    resource: Resource
    timeout_s: float

    @property
    def pool(self) -> Literal["prefork", "threads"]:
        """Network-bound jobs share one process; the others need a process they can lose."""
        return "threads" if self.resource == "network" else "prefork"


QUEUES: dict[str, QueueSpec] = {
    spec.name: spec
    for spec in (
        QueueSpec("search", "network", 60.0),
        QueueSpec("diffusion", "gpu", 300.0),
        QueueSpec("edit", "gpu", 300.0),
        QueueSpec("code", "cpu", 60.0),
        QueueSpec("judge_text", "network", 180.0),
        QueueSpec("judge_image", "network", 180.0),
    )
}
