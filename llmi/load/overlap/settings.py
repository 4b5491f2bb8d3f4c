"""The settings of `llmi bench overlap`: simulated services, their slots, and the steps of each variant.

Invariant: all variants share services, slots, draws, batch, staleness bound and policy (its learning rate is
so small that it does not change); they differ in when they post requests, in threads and in groups in flight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from pydantic import Field, field_validator, model_validator

from workers.settings import Settings

VariantName = Literal["blocking", "blocking_wide", "coupled", "llmi"]
SERVICES_ENV = "LLMI_TIMED_SERVICES"  # of the workers: `ServiceSettings` as JSON
TOOL_THREADS, JUDGE_THREADS = 6, 8  # of the original

MEAN_S = {
    "diffusion": 4.0,
    "edit": 4.0,
    "search": 1.0,
    "code": 0.3,
    "judge_text": 2.0,
    "judge_image": 3.0,
}
SLOTS = {"diffusion": 16, "edit": 16, "search": 8, "code": 8, "judge_text": 16, "judge_image": 16}


class ServiceSettings(Settings):
    """The simulated services: log-normal service times."""

    mean_s: Mapping[str, float] = MEAN_S
    """Mean seconds of a job, for each queue."""
    sigma: float = Field(default=0.6, ge=0)
    """Standard deviation of the logarithm of the seconds."""
    slots: Mapping[str, int] = SLOTS
    """Jobs that the workers of each queue run at once."""
    seed: int = 0
    """Seed of the service times."""

    @model_validator(mode="after")
    def _complete(self) -> ServiceSettings:
        for name, given in (("mean_s", self.mean_s), ("slots", self.slots)):
            if set(given) != set(MEAN_S):
                raise ValueError(f"{name} must name each of {', '.join(MEAN_S)}, and no other")
        return self

    def draw(self, queue: str, number: int) -> float:
        """Service time in seconds of the `number`th job of this queue: the same in every variant."""
        mean_s = self.mean_s[queue]
        random = Random(f"{self.seed}:{queue}:{number}")
        return random.lognormvariate(math.log(mean_s) - self.sigma**2 / 2, self.sigma)

    def fast(self, factor: float) -> ServiceSettings:
        """The same with all times divided."""
        return self.model_copy(update={"mean_s": {name: s / factor for name, s in self.mean_s.items()}})


class VariantSettings(Settings):
    """The steps of one variant."""

    warm: int = Field(ge=1)
    """First steps, which are not measured."""
    steps: int = Field(ge=1)
    """Measured steps of each repeat."""
    cool: int = Field(default=0, ge=0)
    """Last steps, which are not measured: a run has nothing more to submit in them."""

    def total(self, repeats: int) -> int:
        return self.warm + repeats * self.steps + self.cool


VARIANTS: Mapping[VariantName, VariantSettings] = {
    "blocking": VariantSettings(warm=1, steps=1),
    "blocking_wide": VariantSettings(warm=1, steps=2),
    "coupled": VariantSettings(warm=4, steps=6, cool=4),
    "llmi": VariantSettings(warm=8, steps=6, cool=4),
}


class OverlapSettings(Settings):
    """What `llmi bench overlap` runs."""

    batch: int = Field(default=4, ge=1)
    """Prompts of a step."""
    n: int = Field(default=8, ge=2)
    """Rollouts of a prompt."""
    max_staleness: int = Field(default=6, ge=1)
    """Oldest sample that is trained on, in weight updates."""
    response_tokens: int = Field(default=256, ge=1)
    """Longest document, in tokens."""
    seed: int = Field(default=1, ge=0)
    """Seed of the run."""
    repeats: int = Field(default=3, ge=1)
    """Times that the measured steps of a variant are repeated."""
    services: ServiceSettings = ServiceSettings()
    """The simulated services of the first mix."""
    fast: float = Field(default=20.0, gt=1)
    """Factor by which services are faster in the second mix."""
    variants: Mapping[VariantName, VariantSettings] = VARIANTS
    """The steps of each variant."""

    @field_validator("variants")
    @classmethod
    def _all(cls, variants: Mapping[VariantName, VariantSettings]) -> Mapping[VariantName, VariantSettings]:
        return {**VARIANTS, **variants}


def widths(services: ServiceSettings, tools: Sequence[str]) -> tuple[int, int]:
    """Slots of all tools, and of all judges."""
    of_tools = sum(count for name, count in services.slots.items() if name in tools)
    return of_tools, sum(services.slots.values()) - of_tools
