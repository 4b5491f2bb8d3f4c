"""The settings of `llmi bench staleness`, and its arms.

Invariant: all arms share policy, prompts, batch, learning rate, loss, services and their draws. They differ
in when requests are posted, how many groups are in flight, the bound on staleness, and the correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from llmi.load.simulated.services import SLOTS, ServiceSettings
from workers.settings import Settings

ArmName = Literal["synchronous", "coupled", "llmi", "llmi_uncorrected", "llmi_stale"]
MORE_SLOTS = 2  # than in `llmi bench overlap`, as there are twice the samples in a batch


@dataclass(frozen=True)
class Arm:
    """How one arm trains.

    - `coupled`: tools when the text is complete, judges after the last image (`llmi.load.overlap.loops`).
    - `batches`: submitted before the first step's own; `adaptive`: their number in flight changes.
    - `max_staleness`: as `train.max_staleness`.
    - `corrected`: truncated importance sampling (`train.rollout_is: token`).
    """

    about: str
    batches: float = 1.0
    adaptive: bool = False
    coupled: bool = False
    max_staleness: int = 6
    corrected: bool = True


ARMS: Mapping[ArmName, Arm] = {
    "synchronous": Arm("a batch is requested when the last one is trained on", batches=0.0),
    "coupled": Arm("as verl's asynchronous trainer; tools awaited in the rollout", coupled=True),
    "llmi": Arm("the window adapts", adaptive=True),
    "llmi_uncorrected": Arm("the same without correction, as if stale samples were fresh",
                            adaptive=True, corrected=False),
    "llmi_stale": Arm("eight batches in flight, so that samples are as old as a bound of 8 permits",
                      batches=7.0, max_staleness=8),
}  # fmt: skip


class StalenessSettings(Settings):
    """What `llmi bench staleness` runs."""

    arms: tuple[ArmName, ...] = Field(default=tuple(ARMS), min_length=1)
    """Arms to run, in this order."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    """A run of each arm for each seed. It decides the order of the prompts and the sampling."""
    batch: int = Field(default=8, ge=1)
    """Prompts of a step. As in the demo: with fewer, steps of this learning rate are too noisy to learn."""
    n: int = Field(default=8, ge=2)
    """Rollouts of a prompt."""
    lr: float = Field(default=5e-4, gt=0)
    """Learning rate, as in the demo."""
    reward: float = Field(default=0.7, gt=0, le=1)
    """A run ends when its mean reward over `averaged` steps is at least this."""
    averaged: int = Field(default=4, ge=1)
    """Steps over which rewards are averaged."""
    max_steps: int = Field(default=28, ge=1)
    """A run that has not reached `reward` ends after so many steps."""
    response_tokens: int = Field(default=256, ge=1)
    """Longest document, in tokens."""
    services: ServiceSettings = ServiceSettings(
        slots={name: MORE_SLOTS * slots for name, slots in SLOTS.items()}
    )
    """The simulated services."""

    @model_validator(mode="after")
    def _averageable(self) -> StalenessSettings:
        if self.max_steps < self.averaged:
            raise ValueError(f"max_steps must be at least averaged ({self.averaged})")
        return self
