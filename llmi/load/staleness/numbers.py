"""The numbers of `llmi bench staleness` from its curves. Pure.

Invariant: a ratio compares two arms at the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from llmi.load.staleness.curve import Curve, Reached
from llmi.load.staleness.settings import ArmName, StalenessSettings
from llmi.load.targets import Target

Curves = Mapping[ArmName, Mapping[int, Curve]]  # by arm and seed
FASTER_THAN_COUPLED = 1.4


@dataclass(frozen=True)
class Middle:
    """Median and range over the seeds, without those with no value.

    A ratio is infinite where only this arm reached the reward, 0 where only the other one did; a seed in
    which neither did has none.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Middle | None:
        """None without values."""
        known = sorted(values)
        return cls(median(known), known[0], known[-1]) if known else None

    def document(self) -> dict[str, Any]:
        """For JSON, which has no infinity: "inf"."""
        parts = {"median": self.median, "least": self.least, "most": self.most}
        return {name: value if math.isfinite(value) else "inf" for name, value in parts.items()}


@dataclass(frozen=True)
class ArmNumbers:
    """One arm over its seeds.

    - `reached`: by seed; None where the reward was not reached.
    - `step_s`: seconds of a step. `staleness`: mean age of samples in steps, over all but the first steps,
      which are younger. `effective`, `clipped`: see `Point`.
    - `gain_per`: gain in reward for each unit.
    - `faster`, `fewer`: how many times the seconds (and the samples) of the arm compared with.
    """

    name: ArmName
    reached: Mapping[int, Reached | None]
    step_s: float
    samples_per_s: float
    staleness: float
    staleness_worst: float
    effective: float | None
    clipped: float | None
    gain_per: Mapping[str, Middle]
    faster: Middle | None
    fewer: Middle | None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "reached": {str(seed): one and vars(one) for seed, one in self.reached.items()},
            "seconds_per_step": self.step_s,
            "samples_per_s": self.samples_per_s,
            "staleness_mean": self.staleness,
            "staleness_worst": self.staleness_worst,
            "effective_sample_size": self.effective,
            "clipped_fraction": self.clipped,
            "gain_per": {unit: one.document() for unit, one in self.gain_per.items()},
            "time_to_reward_against_coupled": self.faster and self.faster.document(),
            "samples_to_reward_against_synchronous": self.fewer and self.fewer.document(),
        }


def measure(settings: StalenessSettings, curves: Curves) -> list[ArmNumbers]:
    """The numbers of each arm, in order."""
    return [_arm(name, settings, curves) for name in curves]


def targets(numbers: Sequence[ArmNumbers]) -> list[Target]:
    """Time to reward of `llmi` against `coupled`, if both were run; 0 where no seed of either reached it."""
    arms = {one.name: one for one in numbers}
    if "coupled" not in arms or "llmi" not in arms:
        return []
    faster = arms["llmi"].faster
    value = faster.median if faster else 0.0
    return [Target("time to reward against coupled", value, "x", at_least=FASTER_THAN_COUPLED)]


def ratio(other: Reached | None, own: Reached | None, field: str) -> float | None:
    """`other` divided by `own`; None if neither reached the reward."""
    if other is None:
        return math.inf if own else None
    return getattr(other, field) / getattr(own, field) if own else 0.0


def _arm(name: ArmName, settings: StalenessSettings, curves: Curves) -> ArmNumbers:
    own = curves[name]
    reached = {seed: curve.reached(settings.reward) for seed, curve in own.items()}

    def against(other: ArmName, field: str) -> Middle | None:
        pairs = (
            (curves[other][seed].reached(settings.reward), reached[seed])
            for seed in own
            if seed in curves.get(other, {})
        )
        ratios = (ratio(theirs, ours, field) for theirs, ours in pairs)
        return Middle.of(value for value in ratios if value is not None)

    points = [point for curve in own.values() for point in curve.points]
    later = [point for curve in own.values() for point in curve.points[settings.averaged :]] or points
    seconds = sum(curve.points[-1].seconds for curve in own.values())
    gains = [curve.gain_per() for curve in own.values()]
    return ArmNumbers(
        name=name,
        reached=reached,
        step_s=seconds / len(points),
        samples_per_s=sum(point.samples for point in points) / seconds,
        staleness=fmean(point.staleness for point in later),
        staleness_worst=max(point.staleness_worst for point in points),
        effective=_mean(point.effective for point in later),
        clipped=_mean(point.clipped for point in later),
        gain_per={
            unit: found for unit in gains[0] if (found := Middle.of(gain[unit] for gain in gains)) is not None
        },
        faster=against("coupled", "seconds"),
        fewer=against("synchronous", "samples"),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
