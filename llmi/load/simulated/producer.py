"""A process that produces requests: real rollouts, as Ray's agent loop runs them, without verl and vLLM.

What is real: rollout, tag reader, tooling, queue client, ledger, producer's metrics and scorer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry

from llmi.load.simulated.model import END, PROMPT_TOKENS, SimulatedModel, SimulatedText
from llmi.tools import SOURCES
from policy.document import Task
from policy.ledger.writer import LedgerWriter
from policy.rollout.result import RolloutResult
from policy.rollout.rollout import Limits, Rollout
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.messages import Outcome, Request
from workers.metrics.telemetry import ProducerMetrics
from workers.settings import QueueSettings

RESPONSE_TOKENS = 24_000


class SimulatedProducer:
    """A producer with a simulated model, as an async context manager: connected to the queue within it, its
    ledger closed after it.

    `closed(rollout_id, number)` is called when a tag has closed. Subclasses extend `_posted` and `_ended`,
    which see every request and outcome.
    """

    def __init__(
        self,
        settings: QueueSettings,
        run: Path,
        seed: int,
        timeout_s: float,
        judges: JudgeSettings | None = None,
        closed: Callable[[str, int], None] = lambda _rollout, _number: None,
    ):
        self.ledger = LedgerWriter(run, "rollout")
        self.metrics = ProducerMetrics(CollectorRegistry())
        self.client = QueueClient(settings, on_posted=self._posted, on_outcome=self._ended)
        self.scorer = QueueScorer(RewardSettings(), judges or JudgeSettings())
        self.model = SimulatedModel(seed, closed)
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        await self.client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self.ledger.close()

    @property
    def in_flight(self) -> int:
        """Requests without an outcome."""
        return self.client.in_flight

    async def write(self, rollout_id: str, text: SimulatedText) -> RolloutResult:
        """Run a rollout in which the model writes `text`, to its reward."""
        task = Task(question="A question of one line. Use images.", image_num=2, tools=SOURCES)
        rollout = Rollout(
            rollout_id=rollout_id,
            task=task,
            generate=partial(self.model.generate, rollout_id=rollout_id, text=text),
            decode=self.model.vocabulary.decode,
            ends=frozenset({END}),
            client=self.client,
            scorer=self.scorer,
            ledger=self.ledger,
            limits=Limits(RESPONSE_TOKENS, self._timeout_s),
        )
        self.ledger.started(rollout_id, task)
        try:
            with self.metrics.rollout():
                return await rollout.run(list(range(1, PROMPT_TOKENS + 1)))
        finally:
            self.model.forget(rollout_id)

    def _posted(self, request: Request) -> None:
        self.ledger.posted(request)
        self.metrics.posted(request)

    def _ended(self, outcome: Outcome) -> None:
        self.ledger.request_ended(outcome)
        self.metrics.ended(outcome)
