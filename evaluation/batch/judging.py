"""Judge a written document: by its criteria, or with the training reward.

Invariants:
- A verdict that exists, or that a request under way will give, is not requested again.
- A temporary infrastructure failure is retried a few times within the item's time. Then the verdict is
  missing, with its cause.
- What counts 0 by the evaluated model's fault is not retried.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Any

import tenacity

from evaluation.batch.batch import Manifest
from evaluation.batch.resources import Resources
from evaluation.batch.results import CriterionResult, ItemResult, Missing, Refused
from evaluation.benchmark import Item
from evaluation.payloads import RUBRIC_KIND, RubricPayload
from evaluation.rubric.verdict import judgement
from policy.document import Document
from policy.scoring import Draft, Score
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.scorer import QueueScorer
from workers.client.blocking import states
from workers.errors import Cause, Fault, InfrastructureFault
from workers.messages import Failure, Request

TRIES = 3
POLL_S = 0.5
TEMPORARY = frozenset(
    {
        Cause.WORKER_LOST,
        Cause.TIMEOUT,
        Cause.QUOTA,
        Cause.PROVIDER_DOWN,
        Cause.BAD_ANSWER,
        Cause.VERDICT_UNREADABLE,
        Cause.SANDBOX,
        Cause.INPUT_UNAVAILABLE,
    }
)


@dataclass(frozen=True)
class Budget:
    """The time of one item. `deadline` in Unix seconds."""

    deadline: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline - time.time())

    def retrying(self, **options: Any) -> tenacity.AsyncRetrying:
        """At most `TRIES` tries within the item's time; the pauses between them grow, with jitter."""
        return tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_before_delay(self.left_s),
            wait=tenacity.wait_random_exponential(multiplier=1, max=30),
            **options,
        )


@dataclass(frozen=True)
class Judging:
    """The judging of one document of one item. `round` counts the times that the item was posted."""

    manifest: Manifest
    item: Item
    round: int
    document: Document
    shared: Resources
    budget: Budget

    async def result(self, earlier: ItemResult | None, resumed: bool) -> ItemResult:
        """The item's result.

        `earlier`: the result of an earlier round on this document; its verdicts are kept. `resumed`: the
        document was written before, so that requests for it may be under way.
        """
        if self.item.criteria:
            return await self._by_criteria(earlier, resumed)
        return await self._by_reward(earlier, resumed)

    async def _by_criteria(self, earlier: ItemResult | None, resumed: bool) -> ItemResult:
        known = dict(earlier.verdicts) if earlier else {}
        pending = {
            name: _attempts(known.get(name))
            for name in self.item.criteria
            if isinstance(known.get(name), Missing | None)
        }
        if resumed:
            ids = [
                self._criterion_id(name, first + more)
                for name, first in pending.items()
                for more in range(TRIES)
            ]
            await self._until_ended(RUBRIC_KIND, ids)
        found = await asyncio.gather(*(self._criterion(name, first) for name, first in pending.items()))
        known.update(zip(pending, found, strict=True))
        return ItemResult(
            item_id=self.item.item_id,
            round=self.round,
            document_id=self.document.rollout_id,
            verdicts={name: known[name] for name in self.item.criteria},
        )

    async def _criterion(self, name: str, first: int) -> CriterionResult:
        """The verdict on one criterion. `first`: the number of its first attempt."""
        attempts = itertools.count(first)
        payload = RubricPayload.of(self.document, self.item.criteria[name], self.manifest.rubric)

        async def once() -> CriterionResult:
            attempt = next(attempts)
            left_s = self.budget.left_s
            request = Request.make(
                RUBRIC_KIND,
                payload,
                timeout_s=left_s,
                # Half of the item's last seconds is for the queue; else the request would be late at once.
                limit_s=max(1.0, min(left_s / 2, self.manifest.rubric.timeout_s)),
                seed=attempt,
                owner=self.document.rollout_id,
                request_id=self._criterion_id(name, attempt),
                priority=self.shared.client.priority,
            )
            try:
                outcome = await (await self.shared.client.post(request)).outcome()
                if not isinstance(outcome.result, Failure):
                    return judgement(outcome)
                failure = outcome.result
            except InfrastructureFault as fault:
                failure = Failure.of(fault)
            if failure.fault is Fault.MODEL:
                return Refused(failure=failure)
            return Missing(failure=failure, attempts=attempt + 1)

        temporary = tenacity.retry_if_result(
            lambda result: isinstance(result, Missing) and result.failure.cause in TEMPORARY
        )
        result: CriterionResult = await self.budget.retrying(retry=temporary, retry_error_callback=_last)(
            once
        )
        return result

    async def _by_reward(self, earlier: ItemResult | None, resumed: bool) -> ItemResult:
        first = earlier.attempts if earlier else 0
        owners = [f"{self.document.rollout_id}.{first + more}" for more in range(TRIES)]
        if resumed:
            for kind in (TEXT_KIND, IMAGE_KIND):
                await self._until_ended(kind, [f"{owner}.{kind}" for owner in owners])
        scorer = QueueScorer(self.manifest.reward, self.manifest.judges)
        attempts = itertools.count(0)

        async def once() -> Score:
            document = self.document.model_copy(update={"rollout_id": owners[next(attempts)]})
            finished: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
            finished.set_result(document)
            return await scorer.score(Draft(document=document, finished=finished, client=self.shared.client))

        temporary = tenacity.retry_if_result(
            lambda score: bool(score.masked_by) and all(f.cause in TEMPORARY for f in score.masked_by)
        )
        score: Score = await self.budget.retrying(retry=temporary, retry_error_callback=_last)(once)
        return ItemResult(
            item_id=self.item.item_id,
            round=self.round,
            document_id=self.document.rollout_id,
            score=score,
            attempts=first + next(attempts),
        )

    async def _until_ended(self, kind: str, ids: list[str]) -> None:
        """Wait while a request that another worker posted is queued or running, so that none runs twice.
        Posting it again then returns its outcome.
        """
        while self.budget.left_s:
            found = await asyncio.to_thread(states, self.shared.redis, ids)
            if not {"queued", "running"} & set(found.values()):
                return
            await asyncio.sleep(POLL_S)

    def _criterion_id(self, name: str, attempt: int) -> str:
        return f"{self.document.rollout_id}.{name}.{attempt}"


def _last(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _attempts(result: CriterionResult | None) -> int:
    return result.attempts if isinstance(result, Missing) else 0
