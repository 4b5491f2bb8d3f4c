"""Groups of simulated rollouts; their valid members are gathered into batches, as the trainer does.

Invariant: a rollout is trained on at most once, and only with a reward; every other one is masked, with its
whole group if too few are valid.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmi.load.simulated.producer import SimulatedProducer
from rewards.settings import JudgeSettings
from workers.messages import Failure, Outcome, Request
from workers.settings import QueueSettings

SIBLINGS, MIN_VALID = 4, 2
GROUPS = 12  # in flight by default
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Sample:
    """A member of a batch."""

    rollout_id: str
    reward: float


class GroupLoad(SimulatedProducer):
    """Call `run`: it returns when `finish` was called and all groups have ended.

    `train` gets each sample of a batch. `groups`: how many are in flight. `outcomes` counts outcomes by
    success or cause.
    """

    def __init__(
        self,
        settings: QueueSettings,
        judges: JudgeSettings,
        run: Path,
        seed: int,
        train: Callable[[Sample], None],
        groups: int = GROUPS,
    ):
        super().__init__(settings, run, seed, TIMEOUT_S, judges)
        self.posted = self.rollouts = 0
        self.outcomes: Counter[str] = Counter()
        self._train = train
        self._in_flight = groups
        self._groups = 0
        self._finishing = False

    def finish(self) -> None:
        """Start no further group."""
        self._finishing = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._in_flight):
                tasks.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        while not self._finishing:
            self._groups += 1
            await self._group(f"chaos{self._groups:06d}", self._groups)

    async def _group(self, uid: str, step: int) -> None:
        text = self.model.choose()
        ids = [f"{uid}_{sibling}" for sibling in range(SIBLINGS)]
        results = await asyncio.gather(*(self.write(rollout_id, text) for rollout_id in ids))
        self.rollouts += len(results)
        valid = [
            (rollout_id, result.reward)
            for rollout_id, result in zip(ids, results, strict=True)
            if result.reward is not None
        ]
        enough = len(valid) >= MIN_VALID
        for rollout_id, reward in valid:
            if enough:
                self._train(Sample(rollout_id, reward))
                self.ledger.rollout_ended(rollout_id, "trained", step=step)
            else:
                reason = "dropped with its group, which had too few valid samples"
                self.ledger.rollout_ended(rollout_id, "masked", reason=reason, step=step)

    def _posted(self, request: Request) -> None:
        self.posted += 1
        super()._posted(request)

    def _ended(self, outcome: Outcome) -> None:
        result = outcome.result
        self.outcomes[result.cause.value if isinstance(result, Failure) else result.status] += 1
        super()._ended(outcome)
