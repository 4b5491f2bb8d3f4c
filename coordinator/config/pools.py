"""Settings of the worker pools and of their scaler: the section "workers".

Invariants: queues of one pool can share a process; a queue is in one pool only.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from workers.queues import QUEUES, sharing_problem
from workers.settings import Settings

MEMORY_MB = 4096


class PoolSettings(Settings):
    """Workers that serve the same queues. Each is a Ray actor with one Celery worker."""

    queues: tuple[str, ...] = Field(min_length=1)
    """Queues that these workers serve. A queue is in one pool only; network-bound queues share no pool with
    others."""
    concurrency: int = Field(default=1, ge=1)
    """Jobs that one worker runs at once."""
    low: int = Field(default=1, ge=0)
    """Fewest workers that the scaler keeps. With 0 there are none while no request waits."""
    high: int = Field(default=1, ge=1)
    """Most workers that the scaler starts; at least `low`."""
    cpus: float = Field(default=1.0, ge=0)
    """CPUs that a worker declares to Ray, also fractions."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs that a worker declares to Ray, also fractions. A worker that declares none sees none."""
    memory_mb: int | None = Field(default=None, ge=0)
    """MiB above which a process is replaced after its job; 0: never. By default 4096, and never where a model
    may be loaded."""

    @property
    def name(self) -> str:
        return "-".join(self.queues)

    @property
    def limit_mb(self) -> int:
        """MiB above which a process is replaced after its job; 0 for never."""
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
    """How pools grow and shrink."""

    every_s: float = Field(default=1.0, gt=0)
    """Seconds between two decisions."""
    drain_s: float = Field(default=30.0, gt=0)
    """Seconds in which a backlog should be worked off. Less starts more workers sooner."""
    utilization: float = Field(default=0.8, gt=0, le=1)
    """Share of its time that a worker should be busy. The rest absorbs bursts."""
    idle_s: float = Field(default=60.0, ge=0)
    """Seconds for which fewer workers must be enough before one is stopped, so that a pause between steps
    stops none."""


NETWORK = tuple(name for name, spec in QUEUES.items() if spec.resource == "network" and not spec.waits)


class WorkerSettings(Settings):
    """The pools of workers that a run keeps on its Ray cluster."""

    pools: tuple[PoolSettings, ...] = (
        PoolSettings(queues=("diffusion", "edit")),
        PoolSettings(queues=("code",)),
        PoolSettings(queues=NETWORK, concurrency=16),
    )
    """The pools. An empty list: all workers run elsewhere."""
    scaler: ScalerSettings = ScalerSettings()
    """How pools grow and shrink."""
    ready_s: float = Field(default=900.0, gt=0)
    """Seconds that a worker may take to load its models before it counts as failed."""

    @field_validator("pools")
    @classmethod
    def _apart(cls, pools: tuple[PoolSettings, ...]) -> tuple[PoolSettings, ...]:
        names = [name for pool in pools for name in pool.queues]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"queue {twice[0]!r} is in two pools; name it in one")
        return pools
