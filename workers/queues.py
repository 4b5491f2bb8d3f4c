"""The queue table: which kinds of job there are, which queue each travels on, and what a worker of it needs.

Invariants: one kind, one queue of the same name; adding a kind is one line here and one registered job; a job
that waits for other jobs runs in a process that serves nothing else, so that it cannot take their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Resource = Literal["cpu", "gpu", "network"]


@dataclass(frozen=True)
class QueueSpec:
    """`resource` is what a worker slot occupies; `limit_s`: how long a job may run, unless the configuration
    says so; time in the queue does not count. `waits`: its jobs post others and wait for them.
    """

    name: str
    resource: Resource
    limit_s: float
    waits: bool = False

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
        QueueSpec("judge_rubric", "network", 180.0),
        QueueSpec("evaluate", "network", 3600.0, waits=True),
    )
}


def sharing_problem(queues: Sequence[str]) -> str:
    """Why `queues` cannot be served by one worker process; empty when they can."""
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        return (
            f"no queue {unknown[0]!r}; the queues are {', '.join(QUEUES)}" if unknown else "no queue is named"
        )
    if len({QUEUES[name].pool for name in queues}) > 1:
        return "network-bound queues and the others cannot share one process; list them apart"
    waiting = [name for name in queues if QUEUES[name].waits]
    if waiting and len(queues) > 1:
        return f"{waiting[0]} waits for the other queues and needs a process of its own; list it apart"
    return ""
