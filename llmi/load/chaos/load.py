"""The workload: groups of real rollouts by a played model, their valid members gathered into batches.

Rollouts, tooling, scorer, queue client and ledger are the training run's own. Invariant: a rollout is trained
on once at most, and only with a reward; every other one is masked, with its whole group where too few are
left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmi.load.simulated.model import END, PROMPT_TOKENS, PlayedModel, PlayedText
from llmi.tools import SOURCES
from policy.document import Task
from policy.ledger.writer import LedgerWriter
from policy.rollout.result import RolloutResult
from policy.rollout.rollout import Limits, Rollout
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.messages import Failure, Outcome, Request
from workers.settings import QueueSettings

SIBLINGS, MIN_VALID = 4, 2
GROUPS = 12  # in flight, unless said otherwise
LIMITS = Limits(response_tokens=24_000, timeout_s=600.0)


@dataclass(frozen=True)
class Sample:
    """A member of a batch."""

    rollout_id: str
    reward: float


class Load:
    """Use as an async context manager; `run` until `finish` is called and what is under way has ended.

    `train` is given each sample of a batch. `lanes`: groups in flight. `told`: outcomes by success or cause.
    """

    def __init__(
        self,
        settings: QueueSettings,
        judges: JudgeSettings,
        run: Path,
        seed: int,
        train: Callable[[Sample], None],
        lanes: int = GROUPS,
    ):
        self.posted = 0
        self.told: Counter[str] = Counter()
        self._train = train
        self._lanes = lanes
        self.rollouts = 0
        self._ledger = LedgerWriter(run, "rollout")
        self._client = QueueClient(settings, on_posted=self._count, on_outcome=self._ended)
        self._scorer = QueueScorer(RewardSettings(), judges)
        self._model = PlayedModel(seed, lambda _rollout, _number: None)
        self._groups = 0
        self._finishing = False

    async def __aenter__(self) -> Load:
        await self._client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        self._ledger.close()

    @property
    def in_flight(self) -> int:
        """Requests without an outcome."""
        return self._client.in_flight

    def finish(self) -> None:
        """Begin no other group."""
        self._finishing = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(self._lanes):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        while not self._finishing:
            self._groups += 1
            await self._group(f"chaos{self._groups:06d}")

    async def _group(self, uid: str) -> None:
        text = self._model.choose()
        ids = [f"{uid}_{sibling}" for sibling in range(SIBLINGS)]
        written = await asyncio.gather(*(self._rollout(one, text) for one in ids))
        valid = [
            (one, part.reward) for one, part in zip(ids, written, strict=True) if part.reward is not None
        ]
        enough = len(valid) >= MIN_VALID
        for rollout_id, reward in valid:
            if enough:
                self._train(Sample(rollout_id, reward))
                self._ledger.closed(rollout_id, "trained", step=self._groups)
            else:
                reason = "dropped with its group, which had too few valid samples"
                self._ledger.closed(rollout_id, "masked", reason=reason, step=self._groups)

    async def _rollout(self, rollout_id: str, text: PlayedText) -> RolloutResult:
        task = Task(question="A question of one line. Use images.", image_num=2, tools=SOURCES)
        rollout = Rollout(
            rollout_id=rollout_id,
            task=task,
            generate=partial(self._model.generate, rollout_id=rollout_id, text=text),
            decode=self._model.vocabulary.decode,
            ends=frozenset({END}),
            client=self._client,
            scorer=self._scorer,
            ledger=self._ledger,
            limits=LIMITS,
        )
        self._ledger.started(rollout_id, task)
        try:
            written = await rollout.run(list(range(1, PROMPT_TOKENS + 1)))
        finally:
            self._model.forget(rollout_id)
        self.rollouts += 1
        return written

    def _count(self, request: Request) -> None:
        self.posted += 1
        self._ledger.posted(request)

    def _ended(self, outcome: Outcome) -> None:
        result = outcome.result
        self.told[result.cause.value if isinstance(result, Failure) else result.status] += 1
        self._ledger.ended(outcome)
