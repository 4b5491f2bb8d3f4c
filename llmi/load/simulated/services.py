"""The settings of simulated services: their service times and slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random

from pydantic import Field, model_validator

from workers.settings import Settings

SERVICES_ENV = "LLMI_TIMED_SERVICES"  # of the workers: `ServiceSettings` as JSON
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
