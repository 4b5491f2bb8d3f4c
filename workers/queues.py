"""The queue table: the kinds of jobs, and what a worker of each needs.

Invariants:
- One kind, one queue of the same name. Adding a kind is one line here and one registered job.
- A job that waits for other jobs runs in a process that serves no other queue, so that it occupies none of
  their slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Resource = Literal["cpu", "gpu", "network"]


@dataclass(frozen=True)
class QueueSpec:
    """One queue. `resource`: what a worker's slot occupies. `limit_s`: default time limit of a job, from its
    start. `waits`: its jobs post requests and wait for them.
    """

    name: str
    resource: Resource
    limit_s: float
    waits: bool = False

    @property
    def pool(self) -> Literal["prefork", "threads"]:
        """Network-bound jobs share one process. Others need a process that may be killed."""
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
    """Why one worker cannot serve all of `queues`; empty when it can."""
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        return (
            f"no queue {unknown[0]!r}; the queues are {', '.join(QUEUES)}" if unknown else "no queue is given"
        )
    if len({QUEUES[name].pool for name in queues}) > 1:
        return "network-bound queues and other queues cannot share one process; list them separately"
    waiting = [name for name in queues if QUEUES[name].waits]
    if waiting and len(queues) > 1:
        return f"{waiting[0]} waits for the other queues and needs a process of its own; list it separately"
    return ""
