"""Typed settings of the worker pools, and of the scaler that sizes them: the section "workers".

Invariants: queues of one pool can share a process; a queue stands in one pool only.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from workers.queues import QUEUES, sharing_problem
from workers.settings import Settings

MEMORY_MB = 4096


class PoolSettings(Settings):
    """Workers that serve the same queues, each a Celery process that runs `concurrency` jobs at once.

    The scaler keeps between `low` and `high` of them; `cpus` and `gpus` are what each declares to Ray, also
    fractions. A worker that declares no part of a GPU sees none. A process that takes more than `memory_mb`
    makes way for a new one after its job (0: never; none given: `MEMORY_MB`, and never where a model may be
    loaded).
    """

    queues: tuple[str, ...] = Field(min_length=1)
    concurrency: int = Field(default=1, ge=1)
    low: int = Field(default=1, ge=0)
    high: int = Field(default=1, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    memory_mb: int | None = Field(default=None, ge=0)

    @property
    def name(self) -> str:
        return "-".join(self.queues)

    @property
    def limit_mb(self) -> int:
        """Memory at which a process makes way for a new one; 0 for never."""
        if self.memory_mb is not None:
            return self.memory_mb
        loads = any(QUEUES[queue].resource == "gpu" or QUEUES[queue].waits for queue in self.queues)
        return 0 if loads else MEMORY_MB

    @field_validator("queues")
    @classmethod
    def _served_together(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        if problem := sharing_problem(queues):
            raise ValueError(problem)
        return queues

    @model_validator(mode="after")
    def _ordered(self) -> PoolSettings:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}); lower it, or raise high")
        return self


class ScalerSettings(Settings):
    """How pools grow and shrink.

    `every_s`: between looks; `drain_s`: in which a backlog should be worked off; `utilization`: the share of
    its time that a worker should be busy; `idle_s`: how long fewer workers must have been enough before one
    goes.
    """

    every_s: float = Field(default=1.0, gt=0)
    drain_s: float = Field(default=30.0, gt=0)
    utilization: float = Field(default=0.8, gt=0, le=1)
    idle_s: float = Field(default=60.0, ge=0)


NETWORK = tuple(name for name, spec in QUEUES.items() if spec.resource == "network" and not spec.waits)


class WorkerSettings(Settings):
    """The pools that a run keeps on its Ray cluster; an empty list means all workers run elsewhere.

    `ready_s`: how long a worker may take to load what it needs before it counts as failed.
    """

    pools: tuple[PoolSettings, ...] = (
        PoolSettings(queues=("diffusion", "edit")),
        PoolSettings(queues=("code",)),
        PoolSettings(queues=NETWORK, concurrency=16),
    )
    scaler: ScalerSettings = ScalerSettings()
    ready_s: float = Field(default=900.0, gt=0)

    @field_validator("pools")
    @classmethod
    def _apart(cls, pools: tuple[PoolSettings, ...]) -> tuple[PoolSettings, ...]:
        names = [name for pool in pools for name in pool.queues]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"queue {twice[0]!r} stands in two pools; the scaler needs one pool for each")
        return pools
