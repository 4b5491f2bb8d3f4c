"""How fast an arm could be at best, and what is asked of ours.

Invariants: every part of the bound is measured in the same run of the benchmark; the bound is the largest
part, since the parts can overlap and each has its own resource. Training is measured in the blocking arm,
where it has the machine to itself; generation in the arm in which it took the least, since batches written
together take less time than one after the other; a queue's work in the arm itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmi.load.overlap.numbers import ArmNumbers, generated, queues, seconds, waited
from llmi.load.overlap.run import ArmRun
from llmi.load.targets import Target

GENERATION, TRAINING = "generation", "training"
FASTER = {"blocking": 3.0, "blocking_wide": 2.0, "coupled": 1.5}  # samples per second of ours against each
ABOVE_BOUND, IDLE_ABOVE, NO_LOSS = 1.15, 0.05, 0.97


@dataclass(frozen=True)
class Bound:
    """Seconds per step by what needs them: `generation` (at least one text was being written), `training`
    alone (with weight sync), and each queue's work over its slots."""

    parts: Mapping[str, float]

    @property
    def largest(self) -> str:
        """The part that sets the bound."""
        return max(self.parts, key=self.parts.__getitem__)

    @property
    def seconds(self) -> float:
        """What a step takes at least, as far as these parts were at their best."""
        return self.parts[self.largest]

    @property
    def trainer_idle_ratio(self) -> float:
        """What the trainer must wait when every step takes as long as the bound."""
        return 1 - self.parts[TRAINING] / self.seconds if self.seconds else 0.0

    def document(self) -> dict[str, Any]:
        """For JSON."""
        bound = {"seconds": self.seconds, "largest": self.largest}
        return {**bound, "trainer_idle_ratio": self.trainer_idle_ratio, "parts": dict(self.parts)}


def bound(blocking: ArmRun, arm: ArmRun, others: Sequence[ArmRun] = ()) -> Bound:
    """The bound of `arm`. Raises ValueError when arms train on different numbers of samples per step."""
    arms = (blocking, arm, *others)
    if len({one.samples_per_step for one in arms}) > 1:
        raise ValueError(f"{', '.join(one.name for one in arms)} differ in samples per step")
    steps = blocking.steps
    alone = {
        GENERATION: min(generated(one) / len(one.steps) for one in arms),
        TRAINING: (seconds(steps) - waited(steps)) / len(steps),
    }
    work = {queue: numbers.work_s / numbers.slots for queue, numbers in queues(arm).items()}
    return Bound({**alone, **work})


def targets(
    arms: Mapping[str, ArmNumbers], bound: Bound, fast: Mapping[str, ArmNumbers] | None = None
) -> tuple[Target, ...]:
    """What is asked of `ours`, by medians over repeats. `arms`: all four by name, at the default mix, `bound`
    that of ours; `fast`: `coupled` and `ours` where tools are fast."""
    ours = arms["ours"]
    faster = [
        Target(f"samples/s against {name}", _faster(arms, name), "x", at_least=ratio)
        for name, ratio in FASTER.items()
    ]
    over = ours.seconds_per_step.median / bound.seconds
    idle = ours.trainer_idle_ratio.median - bound.trainer_idle_ratio
    rest = [
        Target("seconds per step against the bound", over, "x", at_most=ABOVE_BOUND),
        Target("trainer idle ratio above the unavoidable one", idle, at_most=IDLE_ABOVE),
    ]
    if fast is not None:
        ratio = _faster(fast, "coupled")
        rest.append(Target("samples/s against coupled, fast tools", ratio, "x", at_least=NO_LOSS))
    return (*faster, *rest)


def _faster(arms: Mapping[str, ArmNumbers], other: str) -> float:
    return arms["ours"].samples_per_s.median / arms[other].samples_per_s.median
