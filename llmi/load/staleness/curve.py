"""One run's rewards, and when they reached the target. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Point:
    """One trainer step.

    - `seconds`: from the start of the first step to the end of this one.
    - `samples`: trained on in it. `reward`: their mean, in [0, 1]; they are as old as `staleness` says, so
      that it is the reward of the policy so many steps before.
    - `staleness`: mean age of its samples in steps. `staleness_worst`: of the oldest.
    - `effective`: effective sample size as a share of the batch, in [0, 1]. `clipped`: share of tokens with a
      truncated ratio. None where verl measures neither, which is without correction.
    """

    step: int
    seconds: float
    samples: int
    reward: float
    staleness: float
    staleness_worst: float
    effective: float | None = None
    clipped: float | None = None


@dataclass(frozen=True)
class Reached:
    """What a run needed until its mean reward reached the target."""

    steps: int
    samples: int
    seconds: float


def averaged(rewards: Sequence[float], length: int) -> list[float]:
    """The mean over each `length` consecutive rewards; none when there are fewer."""
    return [fmean(rewards[end - length : end]) for end in range(length, len(rewards) + 1)]


@dataclass(frozen=True)
class Curve:
    """A run: `points` in order; `length`: steps over which rewards are averaged."""

    points: tuple[Point, ...]
    length: int

    def __post_init__(self) -> None:
        if len(self.points) < self.length:
            raise ValueError(f"{len(self.points)} steps are too few for a mean over {self.length}")

    @property
    def rewards(self) -> list[float]:
        """The averaged rewards; the first is that of step `length`."""
        return averaged([point.reward for point in self.points], self.length)

    @property
    def gain(self) -> float:
        """The last averaged reward minus the first."""
        return self.rewards[-1] - self.rewards[0]

    def samples(self, steps: int) -> int:
        """Trained on in the first steps."""
        return sum(point.samples for point in self.points[:steps])

    def reached(self, target: float) -> Reached | None:
        """At the first step with an averaged reward of at least `target`; None if there is none."""
        for step, reward in enumerate(self.rewards, self.length):
            if reward >= target:
                return Reached(step, self.samples(step), self.points[step - 1].seconds)
        return None

    def gain_per(self) -> dict[str, float]:
        """The gain for each thousand samples, each step and each hour, between the two averages."""
        first, last = self.points[self.length - 1], self.points[-1]
        steps = last.step - first.step
        if not steps:
            return {"thousand samples": 0.0, "step": 0.0, "hour": 0.0}
        samples = self.samples(len(self.points)) - self.samples(self.length)
        hours = (last.seconds - first.seconds) / 3600
        return {
            "thousand samples": 1000 * self.gain / samples,
            "step": self.gain / steps,
            "hour": self.gain / hours,
        }

    def document(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [asdict(point) for point in self.points]
