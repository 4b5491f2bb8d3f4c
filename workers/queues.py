"""The queue table: the kinds of jobs, and the resources that a worker of each needs.

A package adds a queue with an entry point of the group `llmi.queues`: a `QueueSpec` under its name.

Invariants:
- One kind, one queue of the same name, one registered job.
- A job that waits for other jobs runs in a process that serves no other queue, so that it occupies none of
  their slots.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

from workers.errors import ConfigError

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
        """Celery's pool: threads for network-bound jobs, else processes, which can be killed."""
        return "threads" if self.resource == "network" else "prefork"


GROUP = "llmi.queues"
_BUILT_IN = (
    QueueSpec("search", "network", 60.0),
    QueueSpec("diffusion", "gpu", 300.0),
    QueueSpec("edit", "gpu", 300.0),
    QueueSpec("code", "cpu", 60.0),
    QueueSpec("judge_text", "network", 180.0),
    QueueSpec("judge_image", "network", 180.0),
    QueueSpec("judge_rubric", "network", 180.0),
    QueueSpec("evaluate", "network", 3600.0, waits=True),
)


class QueueTable(Mapping[str, QueueSpec]):
    """The queues by name: the built-in ones, then those of installed packages, which are loaded at the first
    look-up. Raises `ConfigError` then for an entry point that is no queue of its name.
    """

    @functools.cached_property
    def _specs(self) -> dict[str, QueueSpec]:
        specs = {spec.name: spec for spec in _BUILT_IN}
        for point in entry_points(group=GROUP):
            try:
                spec = point.load()
            except AttributeError as error:
                raise ConfigError(
                    f"entry point {point.name!r} of {GROUP}: {error}; define the queue before its job"
                ) from error
            if not isinstance(spec, QueueSpec) or spec.name != point.name or point.name in specs:
                raise ConfigError(f"entry point {point.name!r} of {GROUP}: no new QueueSpec of that name")
            specs[point.name] = spec
        return specs

    def __getitem__(self, name: str) -> QueueSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


QUEUES = QueueTable()


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
