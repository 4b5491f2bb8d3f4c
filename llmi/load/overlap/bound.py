"""The lower bound on a variant's step time, and the targets of `llmi`.

Generation, training and each queue have resources of their own and can overlap. A step therefore takes at
least as long as the largest of these parts. All parts come from one run of the benchmark:

| part | measured in |
|---|---|
| training | the blocking variant, where nothing runs beside it |
| generation | the variant that needed the least time, since batches take less time together than in turn |
| work of a queue | the variant itself |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmi.load.overlap.numbers import VariantNumbers, generated, queues, seconds, waited
from llmi.load.overlap.run import VariantRun
from llmi.load.targets import Target

GENERATION, TRAINING = "generation", "training"
FASTER = {"blocking": 3.0, "blocking_wide": 2.0, "coupled": 1.75}  # samples per second of llmi against each
ABOVE_BOUND, IDLE_ABOVE, NO_LOSS = 1.15, 0.05, 1.0
STALENESS = 2.2  # mean, in steps


@dataclass(frozen=True)
class Bound:
    """Seconds per step of each part.

    `generation`: at least one text was being generated. `training`: includes weight sync. A queue: its work
    divided by its slots.
    """

    parts: Mapping[str, float]

    @property
    def largest(self) -> str:
        """The part that sets the bound."""
        return max(self.parts, key=self.parts.__getitem__)

    @property
    def seconds(self) -> float:
        """The lower bound on the time of a step."""
        return self.parts[self.largest]

    @property
    def trainer_idle_ratio(self) -> float:
        """The share of a step in which the trainer would wait if the step took as long as the bound."""
        return 1 - self.parts[TRAINING] / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        bound = {"seconds": self.seconds, "largest": self.largest}
        return {**bound, "trainer_idle_ratio": self.trainer_idle_ratio, "parts": dict(self.parts)}


def bound(blocking: VariantRun, variant: VariantRun, others: Sequence[VariantRun] = ()) -> Bound:
    """The bound of `variant`. Raises `ValueError` when variants differ in samples per step."""
    variants = (blocking, variant, *others)
    if len({one.samples_per_step for one in variants}) > 1:
        raise ValueError(f"{', '.join(one.name for one in variants)} differ in samples per step")
    steps = blocking.steps
    alone = {
        GENERATION: min(generated(one) / len(one.steps) for one in variants),
        TRAINING: (seconds(steps) - waited(steps)) / len(steps),
    }
    work = {queue: numbers.work_s / numbers.slots for queue, numbers in queues(variant).items()}
    return Bound({**alone, **work})


def targets(
    variants: Mapping[str, VariantNumbers], bound: Bound, fast: Mapping[str, VariantNumbers] | None = None
) -> tuple[Target, ...]:
    """The targets of `llmi`, by medians over repeats.

    `variants`: all four by name, at the default mix; `bound`: of `llmi`; `fast`: `coupled` and `llmi` with
    fast tools.
    """
    own = variants["llmi"]
    faster = [
        Target(f"samples/s against {name}", _faster(variants, name), "x", at_least=ratio)
        for name, ratio in FASTER.items()
    ]
    over = own.seconds_per_step.median / bound.seconds
    idle = own.trainer_idle_ratio.median - bound.trainer_idle_ratio
    rest = [
        Target("seconds per step against the bound", over, "x", at_most=ABOVE_BOUND),
        Target("trainer idle ratio above the unavoidable one", idle, at_most=IDLE_ABOVE),
        Target("mean staleness", own.staleness_mean, "steps", at_most=STALENESS),
    ]
    if fast is not None:
        ratio = _faster(fast, "coupled")
        rest.append(Target("samples/s against coupled, fast tools", ratio, "x", at_least=NO_LOSS))
    return (*faster, *rest)


def _faster(variants: Mapping[str, VariantNumbers], other: str) -> float:
    return variants["llmi"].samples_per_s.median / variants[other].samples_per_s.median
