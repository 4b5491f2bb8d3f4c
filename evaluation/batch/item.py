"""One item of a batch: have the document written, have it judged, put the result into the batch.

Invariants: the result lies in the batch before the item's message is acknowledged, so that whoever gets the
message after a death goes on where it stopped: a stored document is not written again, a verdict that was
given or is being given is not asked for again; a document that infrastructure spoilt is neither stored nor
judged; a failure of infrastructure is tried again a few times within the item's time, then stands as missing,
with its cause; what the evaluated model is to blame for counts 0 and is not tried again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from dataclasses import dataclass
from typing import Any

import fsspec
import tenacity

from evaluation.batch.authoring import write_document
from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.process_loop import ProcessLoop, process_loop
from evaluation.batch.results import ItemResult, Missing, Refused, Verdict, unwritten
from evaluation.benchmark import Item
from evaluation.payloads import EVALUATE_KIND, RUBRIC_KIND, EvaluatePayload, RubricPayload
from evaluation.rubric.verdict import judgement
from policy.document import Document
from policy.scoring import Draft, Score
from rewards.facts import masking
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.scorer import QueueScorer
from workers.client.blocking import states
from workers.errors import Cause, ConfigError, Fault, InfrastructureFault, JobError, ModelFault
from workers.jobs import JobContext
from workers.messages import Failure, Request, Success
from workers.queues import QUEUES
from workers.settings import ToolSettings, section
from workers.storage.blobs import BlobStore

TRIES = 3
POLL_S = 0.5
GRACE_S = 10.0  # for writing down what there is when the time is up
PASSING = frozenset(
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


def run(payload: EvaluatePayload, ctx: JobContext) -> Success:
    """Do the item. Raises `JobError` when infrastructure left no document to judge; that too lies in the
    batch.
    """
    batch = Batch(payload.batch)
    manifest = _manifest(batch, payload, ctx)
    loop = process_loop()
    deadline = min(ctx.deadline, time.time() + QUEUES[EVALUATE_KIND].limit_s)
    work = ItemWork(batch, manifest, manifest.item(payload.item_id), payload.round, ctx.blobs, loop, deadline)
    result = loop.run(work.evaluate(), deadline + GRACE_S)
    if result.failure is not None and not result.unwritten:
        raise JobError(result.failure.cause, result.failure.detail, provider=result.failure.provider)
    return Success(source={"judged": len(result.points), "of": len(result.verdicts) or 1})


def _manifest(batch: Batch, payload: EvaluatePayload, ctx: JobContext) -> Manifest:
    try:
        manifest = batch.manifest()
    except ConfigError as error:
        raise InfrastructureFault(Cause.BAD_MESSAGE, f"seen from this worker: {error}") from error
    if manifest.batch_id != payload.batch_id:
        raise InfrastructureFault(Cause.BAD_MESSAGE, f"{batch.url} holds another evaluation by now")
    ours, wanted = _place(ctx.blobs.url), _place(manifest.blobs.url)
    if ours != wanted:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"this worker keeps images at {ours} and the evaluation at {wanted}; start it with the "
            "evaluation's configuration",
        )
    return manifest


def _place(url: str) -> str:
    return str(fsspec.core.url_to_fs(url)[1]).rstrip("/")


@dataclass(frozen=True)
class ItemWork:
    """One round of one item. `deadline` in Unix seconds."""

    batch: Batch
    manifest: Manifest
    item: Item
    round: int
    blobs: BlobStore
    loop: ProcessLoop
    deadline: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline - time.time())

    async def evaluate(self) -> ItemResult:
        """The item's result, which lies in the batch."""
        earlier = await asyncio.to_thread(self.batch.result, self.item.item_id)
        if earlier is not None and earlier.round >= self.round:
            return earlier  # it was done, only its message was not acknowledged
        document = await asyncio.to_thread(self.batch.document, self.item.item_id)
        again = document is not None
        try:
            document = document or await self._write()
        except ModelFault as fault:
            result = unwritten(self.item.item_id, self.round, Failure.of(fault), self.item.criteria)
        except JobError as fault:
            result = ItemResult(item_id=self.item.item_id, round=self.round, failure=Failure.of(fault))
        else:
            if earlier is not None and earlier.document_id != document.rollout_id:
                earlier = None
            judge = self._rubric if self.item.criteria else self._reward
            result = await judge(document, earlier, again)
        result = result.model_copy(update={"finished": time.time()})
        await asyncio.to_thread(self.batch.save_result, result)
        return result

    async def _write(self) -> Document:
        document: Document = await self._retrying(
            retry=tenacity.retry_if_exception(lambda error: _passes(error)), reraise=True
        )(self._write_once)
        return await asyncio.to_thread(self.batch.save_document, self.item.item_id, document)

    async def _write_once(self) -> Document:
        """Every writing has an id of its own: its requests must not find the images of another."""
        settings = self.manifest.author
        try:
            document = await write_document(
                self.loop.author(settings),
                self.item.task,
                client=self.loop.client,
                blobs=self.blobs,
                document_id=f"{self.manifest.batch_id}-{self.item.item_id}-{uuid.uuid4().hex[:8]}",
                tools=section("tools", ToolSettings),
                timeout_s=min(self.left_s, settings.timeout_s),
            )
        except ConfigError as error:
            raise InfrastructureFault(Cause.INTERNAL, f"author: {error}", provider="author") from error
        if spoilt := masking(document):
            raise InfrastructureFault(
                spoilt[0].cause,
                f"{len(spoilt)} of {len(document.images)} images, the first: {spoilt[0].detail}",
                provider=spoilt[0].provider,
            )
        return document

    async def _rubric(self, document: Document, earlier: ItemResult | None, again: bool) -> ItemResult:
        known = dict(earlier.verdicts) if earlier else {}
        pending = {name: _attempts(known.get(name)) for name in self.item.criteria
                   if isinstance(known.get(name), Missing | None)}  # fmt: skip
        if again:
            ids = [_criterion_id(document, name, first + more) for name, first in pending.items()
                   for more in range(TRIES)]  # fmt: skip
            await self._settled(RUBRIC_KIND, ids)
        found = await asyncio.gather(*(self._criterion(document, *one) for one in pending.items()))
        known.update(zip(pending, found, strict=True))
        return ItemResult(
            item_id=self.item.item_id,
            round=self.round,
            document_id=document.rollout_id,
            verdicts={name: known[name] for name in self.item.criteria},
        )

    async def _criterion(self, document: Document, name: str, first: int) -> Verdict:
        attempts = itertools.count(first)
        payload = RubricPayload.of(document, self.item.criteria[name], self.manifest.rubric)

        async def once() -> Verdict:
            attempt = next(attempts)
            request = Request.make(
                RUBRIC_KIND,
                payload,
                timeout_s=self.left_s,
                # Half of an item's last seconds is for the queue: what may not wait is late at once.
                limit_s=max(1.0, min(self.left_s / 2, self.manifest.rubric.timeout_s)),
                seed=attempt,
                owner=document.rollout_id,
                request_id=_criterion_id(document, name, attempt),
            )
            try:
                outcome = await (await self.loop.client.post(request)).outcome()
                if not isinstance(outcome.result, Failure):
                    return judgement(outcome)
                failure = outcome.result
            except InfrastructureFault as fault:
                failure = Failure.of(fault)
            if failure.fault is Fault.MODEL:
                return Refused(failure=failure)
            return Missing(failure=failure, attempts=attempt + 1)

        passing = tenacity.retry_if_result(
            lambda verdict: isinstance(verdict, Missing) and verdict.failure.cause in PASSING
        )
        verdict: Verdict = await self._retrying(retry=passing, retry_error_callback=_last)(once)
        return verdict

    async def _reward(self, document: Document, earlier: ItemResult | None, again: bool) -> ItemResult:
        first = earlier.attempts if earlier else 0
        owners = [f"{document.rollout_id}.{first + more}" for more in range(TRIES)]
        if again:
            for kind in (TEXT_KIND, IMAGE_KIND):
                await self._settled(kind, [f"{owner}.{kind}" for owner in owners])
        scorer = QueueScorer(self.manifest.reward, self.manifest.judges)
        attempts = itertools.count(0)

        async def once() -> Score:
            named = document.model_copy(update={"rollout_id": owners[next(attempts)]})
            finished: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
            finished.set_result(named)
            return await scorer.score(Draft(document=named, finished=finished, client=self.loop.client))

        passing = tenacity.retry_if_result(
            lambda score: bool(score.masked_by) and all(f.cause in PASSING for f in score.masked_by)
        )
        score: Score = await self._retrying(retry=passing, retry_error_callback=_last)(once)
        return ItemResult(
            item_id=self.item.item_id,
            round=self.round,
            document_id=document.rollout_id,
            score=score,
            attempts=first + next(attempts),
        )

    async def _settled(self, kind: str, ids: list[str]) -> None:
        """Wait while a request that somebody else posted for this document is queued or running: it is not to
        be run beside itself. Its outcome is then told to whoever posts it again.
        """
        while self.left_s:
            found = await asyncio.to_thread(states, self.loop.redis, kind, ids)
            if not {"queued", "running"} & set(found.values()):
                return
            await asyncio.sleep(POLL_S)

    def _retrying(self, **options: Any) -> tenacity.AsyncRetrying:
        """A few tries within the item's time, the pauses between them growing and jittered."""
        return tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_before_delay(self.left_s),
            wait=tenacity.wait_random_exponential(multiplier=1, max=30),
            **options,
        )


def _passes(error: BaseException) -> bool:
    return isinstance(error, InfrastructureFault) and error.cause in PASSING


def _last(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _attempts(verdict: Verdict | None) -> int:
    return verdict.attempts if isinstance(verdict, Missing) else 0


def _criterion_id(document: Document, name: str, attempt: int) -> str:
    return f"{document.rollout_id}.{name}.{attempt}"
