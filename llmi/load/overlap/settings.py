"""The settings of `llmi bench overlap`: simulated services, their slots, and the steps of each variant.

Invariant: all variants share services, slots, draws, batch, staleness bound and policy (its learning rate is
so small that it does not change); they differ in when they post requests, in threads and in groups in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator

from llmi.load.simulated.services import ServiceSettings
from workers.settings import Settings

VariantName = Literal["blocking", "blocking_wide", "coupled", "llmi"]
TOOL_THREADS, JUDGE_THREADS = 6, 8  # of the original


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
